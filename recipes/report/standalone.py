"""A figure as an SVG file of its own: legend inside, every colour written out, so that any program draws it.

The page colours its pictures by variables and mixtures of colours, which browsers know and converters to PDF do not.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

from recipes.report.axes import CHARACTER
from recipes.report.markup import Figure

STYLE = Path(__file__).with_name("report.css")
SVG = "http://www.w3.org/2000/svg"
_MARGIN, _LINE = 10.0, 18.0
_FONT = "font-family: 'Helvetica Neue', Helvetica, Arial, 'Noto Sans', sans-serif"


def svg_of(figure: Figure) -> str:
    """The figure on white, in the page's light colours; several pictures of one figure stand below each other."""
    ElementTree.register_namespace("", SVG)
    tree = ElementTree.fromstring(f"<div>{figure.picture}</div>")
    pictures = list(tree.iter(f"{{{SVG}}}svg"))
    boxes = [tuple(map(float, picture.attrib["viewBox"].split()[2:])) for picture in pictures]
    wide = max((box[0] for box in boxes), default=0.0)
    whole = ElementTree.Element(f"{{{SVG}}}svg")
    ElementTree.SubElement(whole, f"{{{SVG}}}title").text = figure.title
    ElementTree.SubElement(whole, f"{{{SVG}}}style").text = style()
    ElementTree.SubElement(whole, f"{{{SVG}}}rect", {"width": "100%", "height": "100%", "class": "paper"})
    y = _legend(whole, tree, wide) + _MARGIN
    for picture, (_, tall) in zip(pictures, boxes):
        group = ElementTree.SubElement(whole, f"{{{SVG}}}g", {"transform": f"translate({_MARGIN:.0f} {y:.0f})"})
        group.extend(list(picture))
        y += tall + _MARGIN
    width, height = wide + 2 * _MARGIN, y
    whole.attrib |= {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    for element in whole.iter():
        if "style" in element.attrib:
            element.attrib["style"] = _written_out(element.attrib["style"])
    return ElementTree.tostring(whole, encoding="unicode") + "\n"


def _legend(whole: ElementTree.Element, tree: ElementTree.Element, wide: float) -> float:
    """Write the page's legend into the picture; returns where it ends."""
    x, y = _MARGIN, _MARGIN
    entries = [entry for box in tree.iter("div") if box.get("class") == "legend" for entry in box.iter("span")]
    for entry in entries:
        mark = entry.find("i")
        name = "".join(entry.itertext())
        room = 34 + 0.88 * CHARACTER * len(name)
        if x > _MARGIN and x + room > wide + _MARGIN:
            x, y = _MARGIN, y + _LINE
        class_ = (mark.get("class") if mark is not None else None) or "kx"
        if class_ == "ring":
            place = {"cx": f"{x + 5:.1f}", "cy": f"{y + 5:.1f}", "r": "4.5", "class": "mark-natural"}
            ElementTree.SubElement(whole, f"{{{SVG}}}circle", place)
        else:
            place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": "10", "height": "10", "rx": "2", "class": class_}
            ElementTree.SubElement(whole, f"{{{SVG}}}rect", place)
        ElementTree.SubElement(whole, f"{{{SVG}}}text", {"x": f"{x + 15:.1f}", "y": f"{y + 9:.1f}"}).text = name
        x += room
    return y + _LINE if entries else 0.0


# ---------------------------------------------------------------- the page's style, written out


@cache
def colours() -> dict[str, str]:
    """The page's light colours by variable, `--k0` and so on."""
    light = STYLE.read_text(encoding="utf-8").split("@media", 1)[0]
    return dict(re.findall(r"(--[a-z0-9]+):\s*(#[0-9a-f]+)", light))


@cache
def style() -> str:
    """The rules for pictures, one for each colour class where a rule takes its element's own colour."""
    text = STYLE.read_text(encoding="utf-8")
    classes = [name.removeprefix("--") for name in colours() if re.fullmatch(r"--k[0-9x]|--ink", name)]
    lines = [f"text {{ {_FONT} }}", f".paper {{ fill: {colours()['--ground']} }}"]
    lines += [f"rect.{name} {{ fill: {colours()['--' + name]} }}" for name in ("cool", "warm")]
    for selectors, body in re.findall(r"^(svg [^{]*)\{([^}]*)\}", text, re.MULTILINE):
        names = [selector.strip().removeprefix("svg ") for selector in selectors.split(",")]
        if ":hover" in selectors:
            continue
        if "var(--c" not in body:
            lines.append(f"{', '.join(names)} {{{_written_out(body)}}}")
            continue
        for name in ("kx", *(one for one in classes if one != "kx")):  # the default first: later rules win
            own = body.replace("var(--c, var(--kx))", "var(--c)").replace("var(--c)", f"var(--{name})")
            picked = ", ".join(one if name == "kx" and one in ("circle", "rect") else f"{one}.{name}" for one in names)
            lines.append(f"{picked} {{{_written_out(own)}}}")
    return "\n" + "\n".join(lines) + "\n"


def _written_out(rule: str) -> str:
    """A rule with variables and mixtures of colours as plain colours."""
    known = re.sub(r"var\((--[a-z0-9]+)\)", lambda found: colours()[found[1]], rule)
    return re.sub(
        r"color-mix\(in oklab, (#[0-9a-f]+) ([0-9.]+)%, (#[0-9a-f]+)\)",
        lambda found: mixed(found[1], found[3], float(found[2]) / 100),
        known,
    )


_TO_LMS = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
           (0.0883024619, 0.2817188376, 0.6299787005))  # fmt: skip
_TO_LAB = ((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099),
           (0.0259040371, 0.7827717662, -0.8086757660))  # fmt: skip
_FROM_LAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_FROM_LMS = ((4.0767416621, -3.3077115913, 0.2309699292), (-1.2684380046, 2.6097574011, -0.3413193965),
             (-0.0041960863, -0.7034186147, 1.7076147010))  # fmt: skip


def mixed(first: str, second: str, share: float) -> str:
    """Two colours mixed in Oklab, `share` of the first. Source: Ottosson 2020, "A perceptual color space"."""
    one, other = _to_oklab(first), _to_oklab(second)
    between = [share * a + (1 - share) * b for a, b in zip(one, other)]
    linear = _times(_FROM_LMS, [value**3 for value in _times(_FROM_LAB, between)])
    bytes_ = [round(255 * _gamma(min(1.0, max(0.0, value)))) for value in linear]
    return "#" + "".join(f"{value:02x}" for value in bytes_)


def _to_oklab(colour: str) -> list[float]:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    linear = [_linear(int(digits[k : k + 2], 16) / 255) for k in (0, 2, 4)]
    return _times(_TO_LAB, [value ** (1 / 3) for value in _times(_TO_LMS, linear)])


def _times(matrix: tuple[tuple[float, ...], ...], values: list[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, values)) for row in matrix]


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
