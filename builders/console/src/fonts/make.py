#!/usr/bin/env python3
"""Makes the .font files of this folder from the sources that LICENSE.md names.

    make.py EDK2    # EDK2: a checkout of tianocore/edk2, for LaffStd.c

Needs Debian's packages seabios, console-setup-linux and unifont. A .font file is zlib over: width, height, number of
glyphs (16 bits, big endian), then of each glyph its code point (32 bits) and its rows, each padded to whole bytes.
"""

import glob, gzip, os, re, struct, sys, zlib

HERE = os.path.dirname(os.path.abspath(__file__))
CONSOLE = "/usr/share/consolefonts"
BIOS = "/usr/share/seabios/vgabios-stdvga.bin"
CODE_PAGE_437 = (
    "\0☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
    + "".join(map(chr, range(32, 127)))
    + "⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
    + "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\xa0"
)


def rank(code):
    """Of characters that look the same, ASCII is the likeliest, then line drawing."""
    return (0 if code < 0x80 else 1 if 0x2500 <= code < 0x25A0 else 2, code)


def write(name, width, height, glyphs):
    """glyphs: (code, rows); one character per picture, blanks and full cells left out."""
    size = (width + 7) // 8 * height
    best = {}
    for code, rows in glyphs:
        assert len(rows) == size, (name, hex(code))
        if not any(rows) or code < 0x20 or 0x7F <= code < 0xA0 or 0xE000 <= code < 0xF900 or code == 0xFFFD:
            continue
        if rows not in best or rank(code) < rank(best[rows]):
            best[rows] = code
    entries = sorted(best.items(), key=lambda entry: (entry[1], entry[0]))
    data = struct.pack(">BBH", width, height, len(entries))
    data += b"".join(struct.pack(">I", code) + rows for rows, code in entries)
    packed = zlib.compress(data, 9)
    with open(f"{HERE}/{name}.font", "wb") as file:
        file.write(packed)
    print(f"{name}: {len(entries)} glyphs, {len(packed)} bytes")


def psf(path):
    data = gzip.open(path).read()
    if data[:2] == b"\x36\x04":
        mode, height = data[2], data[3]
        count, size, width, start = (512 if mode & 1 else 256), height, 8, 4
        table = data[4 + count * size :]
        words = struct.unpack(f"<{len(table) // 2}H", table[: len(table) // 2 * 2])
        lists, now, sequence = [], [], False
        for word in words:
            if word == 0xFFFF:
                lists.append(now)
                now, sequence = [], False
            elif word == 0xFFFE:
                sequence = True
            elif not sequence:
                now.append(word)
    else:
        start, _, count, size, height, width = struct.unpack("<6I", data[8:32])
        lists = []
        for entry in data[start + count * size :].split(b"\xff")[:count]:
            lists.append([ord(c) for c in entry.split(b"\xfe")[0].decode("utf-8")])
    for index in range(min(count, len(lists))):
        rows = data[start + index * size : start + (index + 1) * size]
        for code in lists[index]:
            yield code, rows


def console(name, face, width, height):
    glyphs = []
    for path in sorted(glob.glob(f"{CONSOLE}/*-{face}.psf.gz")):
        if re.match("Arabic|Armenian|Ethiopian|Georgian|Hebrew|Lao|Thai", os.path.basename(path)):
            continue
        glyphs.extend(psf(path))
    write(name, width, height, glyphs)


def main():
    bios = open(BIOS, "rb").read()
    # Each font is found by the smiley, its second glyph.
    at16 = bios.index(bytes([0] * 18 + [0x7E, 0x81, 0xA5, 0x81, 0x81, 0xBD, 0x99, 0x81, 0x81, 0x7E, 0, 0, 0, 0]))
    at8 = bios.index(bytes([0] * 8 + [0x7E, 0x81, 0xA5, 0x81, 0xBD, 0x99, 0x81, 0x7E]))
    at14 = bios.index(bytes([0] * 16 + [0x7E, 0x81, 0xA5, 0x81, 0x81, 0xBD, 0x99, 0x81, 0x7E, 0, 0, 0]))
    for height, at in ((8, at8), (14, at14), (16, at16)):
        glyphs = [(ord(c), bios[at + i * height : at + (i + 1) * height]) for i, c in enumerate(CODE_PAGE_437)]
        write(f"vga-8x{height}", 8, height, glyphs)
    for face, height in (("VGA8", 8), ("VGA14", 14), ("VGA16", 16)):
        console(f"uvga-8x{height}", face, 8, height)
    console("uvga-16x28", "VGA28x16", 16, 28)
    console("uvga-16x32", "VGA32x16", 16, 32)
    for height in (13, 14, 15, 16, 18):
        console(f"fixed-8x{height}", f"Fixed{height}", 8, height)
    for letter, face in (("n", "Terminus"), ("b", "TerminusBold")):
        for width, height in ((8, 14), (8, 16), (10, 18), (10, 20), (11, 22), (12, 24), (14, 28), (16, 32)):
            console(f"ter-{letter}-{width}x{height}", f"{face}{height}" + (f"x{width}" if width > 8 else ""), width, height)
    console("ter-n-6x12", "Terminus12x6", 6, 12)
    for height in (14, 16):
        console(f"ter-v-8x{height}", f"TerminusBoldVGA{height}", 8, height)

    source = open(f"{sys.argv[1]}/MdeModulePkg/Universal/Console/GraphicsConsoleDxe/LaffStd.c").read()
    pattern = r"\{\s*0x([0-9a-fA-F]{4}),\s*0x00,\s*\{((?:\s*0x[0-9a-fA-F]{2},?){19})\s*\}\s*\}"
    symbols = r"\{\s*(?:\(CHAR16\)\s*)?((?:BLOCK|BOX|ARROW|GEOMETRIC)\w*),\s*0x00,\s*\{((?:\s*0x[0-9a-fA-F]{2},?){19})\s*\}\s*\}"
    header = open(f"{sys.argv[1]}/MdePkg/Include/Protocol/SimpleTextOut.h").read()
    names = {n: int(v, 16) for n, v in re.findall(r"#define\s+(\w+)\s+0x([0-9a-fA-F]{4})", header)}
    rows = lambda text: bytes(int(x, 16) for x in re.findall(r"0x([0-9a-fA-F]{2})", text))
    glyphs = [(int(c, 16), rows(r)) for c, r in re.findall(pattern, source)]
    glyphs += [(names[n], rows(r)) for n, r in re.findall(symbols, source)]
    write("edk2-8x19", 8, 19, glyphs)

    glyphs = []
    for line in open("/usr/share/unifont/unifont.hex"):
        code, bits = line.strip().split(":")
        code = int(code, 16)
        wanted = code < 0x500 or 0x2000 <= code < 0x2070 or 0x20A0 <= code < 0x2800
        if len(bits) == 32 and wanted:
            glyphs.append((code, bytes.fromhex(bits)))
    write("uni-8x16", 8, 16, glyphs)


main()
