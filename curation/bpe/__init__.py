"""Byte-pair encoding of our own: the ids of the `tokenizers` library bit for bit, in kernels over UTF-8 bytes.

`model` reads a tokenizer.json into tables or says why it cannot, `words` cuts text where the file's pattern does,
`merges` merges by rank, `parts` cuts words where no merge reaches across and remembers their ids, `encoder` puts these
together, and `check` compares with the library whenever a tokenizer is opened.
"""
