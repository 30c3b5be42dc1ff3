"""Words and sentence patterns from which `made_text` makes German, English and Chinese.

Each noun stands in the forms that a sentence needs, so that all sentences are grammatical if not wise. Fixed parts of a
pattern are at most three words long: otherwise all documents would share shingles and count as near-duplicates.
"""

from __future__ import annotations

# German: nominative | accusative | dative
GERMAN_PEOPLE = """
der Müller|den Müller|dem Müller; die Bäckerin|die Bäckerin|der Bäckerin; der Fährmann|den Fährmann|dem Fährmann
die Lehrerin|die Lehrerin|der Lehrerin; der Nachbar|den Nachbarn|dem Nachbarn; die Ärztin|die Ärztin|der Ärztin
der Gärtner|den Gärtner|dem Gärtner; die Kapitänin|die Kapitänin|der Kapitänin; der Förster|den Förster|dem Förster
die Richterin|die Richterin|der Richterin; der Schmied|den Schmied|dem Schmied
die Großmutter|die Großmutter|der Großmutter; der Lehrling|den Lehrling|dem Lehrling
die Bürgermeisterin|die Bürgermeisterin|der Bürgermeisterin; der Uhrmacher|den Uhrmacher|dem Uhrmacher
die Musikerin|die Musikerin|der Musikerin; der Wirt|den Wirt|dem Wirt
"""
GERMAN_THINGS = """
das Korn|das Korn|dem Korn; die Brücke|die Brücke|der Brücke; der Brief|den Brief|dem Brief
das Haus|das Haus|dem Haus; die Rechnung|die Rechnung|der Rechnung; der Garten|den Garten|dem Garten
das Boot|das Boot|dem Boot; die Straße|die Straße|der Straße; der Vertrag|den Vertrag|dem Vertrag
das Lied|das Lied|dem Lied; die Maschine|die Maschine|der Maschine; der Ofen|den Ofen|dem Ofen
das Wetter|das Wetter|dem Wetter; die Zeitung|die Zeitung|der Zeitung; der Weg|den Weg|dem Weg
das Werkzeug|das Werkzeug|dem Werkzeug; die Ernte|die Ernte|der Ernte; der Plan|den Plan|dem Plan
das Gesetz|das Gesetz|dem Gesetz; die Uhr|die Uhr|der Uhr; der Fluss|den Fluss|dem Fluss; das Bild|das Bild|dem Bild
die Frage|die Frage|der Frage; der Turm|den Turm|dem Turm; das Brot|das Brot|dem Brot; die Karte|die Karte|der Karte
der Keller|den Keller|dem Keller; das Buch|das Buch|dem Buch
"""
GERMAN_VERBS = """
prüft beschreibt sucht vergisst erwähnt zeichnet bewundert verteidigt erklärt beobachtet bezahlt repariert verkauft
findet betrachtet vermisst lobt kennt schützt malt misst öffnet erreicht verändert begutachtet
"""
GERMAN_TIMES = """
am Morgen; gegen Mittag; im Winter; nach dem Regen; vor der Ernte; seit drei Jahren; an manchen Tagen
kurz nach Ostern; in der Nacht; zu Beginn des Herbstes; während des Festes; bei gutem Wind; an jedem Sonntag
im letzten Mai; noch vor Sonnenaufgang; nach langer Pause; zwischen zwei Gewittern; heute; gestern; neuerdings
"""
GERMAN_PLACES = """
auf dem Markt; hinter der Mühle; am Ufer; in der Werkstatt; neben der Kirche; vor dem Rathaus; im Hafen
unter der Linde; auf dem Dachboden; an der Grenze; im Nachbardorf; bei der alten Schleuse; in der Schule
am Waldrand; über den Dächern; im Gasthof; hinter dem Deich; auf halber Strecke
"""
GERMAN_MANNERS = """
mit großer Sorgfalt; ohne jede Eile; trotz der Kälte; mit leiser Stimme; aus alter Gewohnheit; zum ersten Mal
mit wenig Hoffnung; für gutes Geld; beinahe heimlich; mit beiden Händen; sehr gründlich; ohne Widerspruch
mit einigem Stolz
"""
GERMAN_PATTERNS = """
{T} {v} {s} {o} {p}.
{S} {v} {o} {m}, weil {s2} {o2} {v2}.
Obwohl {s} {o} {v}, {v2} {s2} {o2} {p}.
Wenn {s} {p} {o} {v}, {v2} {s2} {t} {o2}.
Mit {d} kommt {s} {p} gut zurecht, doch {s2} {v} lieber {o}.
Wer {o} {m} {v}, der {v2} {t} auch {o2}.
{P} {v} {s} {o}, und {t} {v2} {s2} {o2}.
{S} {v} {t} {o}; {s2} {v2} {o2} {m}.
{M} {v} {s} {o}, bevor {s2} {p} {o2} {v2}.
Neben {d} {v} {s} {o} {t}.
Niemand {v} {o} so oft wie {s}, und niemand {v2} {o2} {m}.
Es heißt, dass {s} {t} {o} {v} und {s2} {p} {o2} {v2}.
"""

# English: noun phrases, verbs in the third person and their plain form
ENGLISH_PEOPLE = """
the miller; a patient teacher; the old sailor; her younger brother; the village doctor; a travelling painter
the night watchman; an honest clerk; the new mayor; a retired engineer; the widow; my neighbour; the apprentice
a tired farmer; the librarian; the ferryman; an inventive cook; the judge; a young botanist; the clockmaker
"""
ENGLISH_THINGS = """
the wheat; a wooden bridge; the last letter; an unpaid bill; the walled garden; a small boat; the coast road
an old contract; a familiar song; the steam engine; the brick oven; the morning paper; a narrow path; the town map
a good harvest; the second plan; a forgotten law; the church clock; the wide river; a portrait
the difficult question; the lighthouse; fresh bread; a box of tools; the cellar; an unread book; the railway
a strange rumour
"""
ENGLISH_VERBS = """
describes measures remembers repairs admires sells defends explains watches forgets paints protects inspects finds
praises questions opens reaches changes carries collects counts borrows avoids studies
"""
ENGLISH_TIMES = """
in the morning; around noon; every winter; after the rain; before the harvest; for three years; on some days
shortly after Easter; at night; early in autumn; during the fair; with a fair wind; on most Sundays; last May
before sunrise; after a long pause; between two storms; today; nowadays; once a week
"""
ENGLISH_PLACES = """
at the market; behind the mill; along the shore; in the workshop; beside the church; outside the town hall
in the harbour; under the lime tree; in the attic; near the border; in the next village; by the old lock; at school
at the edge of the forest; above the roofs; in the tavern; behind the dyke; half way home
"""
ENGLISH_MANNERS = """
with great care; without any hurry; in spite of the cold; in a low voice; out of habit; for the first time
with little hope; for good money; almost in secret; with both hands; very thoroughly; without protest
with some pride
"""
ENGLISH_PATTERNS = """
{T}, {s} {v} {o} {p}.
{S} {v} {o} {m}, because {s2} {v2} {o2}.
Although {s} {v} {o}, {s2} {v2} {o2} {p}.
If {s} {v} {o} {p}, then {s2} {v2} {o2} {t}.
{S} has {o} and {o2}, but {s2} {v} them {m}.
Whoever {v} {o} {m} also {v2} {o2} {t}.
{P}, {s} {v} {o}, and {t} {s2} {v2} {o2}.
{S} {v} {o} {t}; {s2} {v2} {o2} {m}.
Before {s} {v} {o}, {s2} {v2} {o2} {p}.
With {o} {p}, {s} {v} {o2} {m}.
Nobody {v} {o} as often as {s}, and nobody {v2} {o2} {t}.
They say that {s} {v} {o} {t} and that {s2} {v2} {o2} {p}.
"""

CHINESE_PEOPLE = """
老船夫 年轻的教师 村里的医生 磨坊主 邻居 新来的县长 退休的工程师 图书管理员 钟表匠 卖菜的妇人 画家 守夜人 学徒 农民
法官 厨师 植物学家 他的弟弟 祖母 邮差
"""
CHINESE_THINGS = """
小麦 木桥 最后一封信 没付的账单 后院 一条小船 海边的公路 旧合同 熟悉的歌 蒸汽机 砖炉 早报 窄路 城市地图 今年的收成
第二个计划 被遗忘的法律 教堂的钟 宽阔的河 一幅画 难题 灯塔 新鲜的面包 一箱工具 地窖 没读完的书 铁路 奇怪的传闻
"""
CHINESE_VERBS = (
    """描述 测量 记录 修理 欣赏 出售 保护 解释 观察 研究 检查 寻找 称赞 讨论 打开 改变 收集 清点 借走 放弃"""
)
CHINESE_TIMES = """
早晨 中午前后 每年冬天 雨后 收获之前 三年来 有些日子 春节过后 夜里 初秋 集市期间 顺风的时候 星期天 去年五月 日出之前
沉默许久之后 两场暴风雨之间 今天 最近 每周一次
"""
CHINESE_PLACES = """
在市场上 在磨坊后面 沿着河岸 在作坊里 在学校旁边 在镇公所门前 在港口 在大树下 在阁楼里 在边境附近 在邻村 在旧水闸边
在森林边缘 在酒馆里 在堤坝后面 在回家的路上
"""
CHINESE_MANNERS = (
    """非常仔细地 不慌不忙地 冒着严寒 低声地 出于习惯 第一次 不抱希望地 悄悄地 用双手 毫无怨言地 有些自豪地 彻底地"""
)
CHINESE_PATTERNS = """
{t}，{s}{p}{v}{o}。
{s}{m}{v}{o}，因为{s2}也想{v2}{o2}。
虽然{s}{v}了{o}，但是{s2}{p}{v2}{o2}。
如果{s}{p}{v}{o}，那么{s2}{t}就会{v2}{o2}。
{s}有{o}和{o2}，{s2}却{m}{v}它们。
谁{m}{v}{o}，谁{t}也会{v2}{o2}。
{p}，{s}{v}着{o}；{t}，{s2}{v2}{o2}。
{s}{t}{v}{o}，{s2}则{m}{v2}{o2}。
在{s}{v}{o}之前，{s2}{p}{v2}过{o2}。
没有人像{s}那样{m}{v}{o}，也没有人{t}{v2}{o2}。
听说{s}{t}{v}了{o}，{s2}又{p}{v2}了{o2}。
关于{o}，{s}知道得很少，{s2}却{m}{v}过。
"""

CODE_NOUNS = """
batch buffer cache channel column counter cursor edge event field frame graph header index inventory journal ledger
matrix message node offset order packet payment queue record region request response sample schedule segment signal
stack stream table ticket token total vector vertex window worker
"""
CODE_VERBS = """
append build check collect compare count decode encode filter find group insert load match merge normalise parse
prune read reduce remove render resolve rotate scale score shift sort split store trim update validate weigh write
"""

BOILERPLATE = {
    "de": "Diese Seite verwendet Cookies, um Inhalte anzuzeigen. Mit der weiteren Nutzung stimmen Sie der "
    "Verwendung zu. Alle Rechte vorbehalten. Impressum und Datenschutz.",
    "en": "This site uses cookies to show its content. By using it further you agree to their use. "
    "All rights reserved. Terms of service and privacy policy.",
    "zh": "本网站使用缓存文件来显示内容。继续使用即表示您同意。版权所有，未经许可不得转载。使用条款与隐私政策。",
    "code": "# This file was generated. Do not edit it by hand; run the generator again instead.\n"
    "# All rights reserved.",
}
JUNK = {
    "de": ["Weiter lesen »", "Startseite | Impressum | Kontakt", "404 - Seite nicht gefunden", "1 2 3 4 … 17 >"],
    "en": ["Read more »", "Home | About | Contact", "404 - page not found", "1 2 3 4 … 17 >", "Share Share Share"],
    "zh": ["阅读全文 »", "首页 | 关于我们 | 联系方式", "404 页面不存在", "1 2 3 4 … 17 >", "分享 分享 分享"],
    "code": ["pass", "# TODO", "import os", "0 1 2 3 4 5 6 7 8 9", "}}}}}}}}"],
}
