//! The ZRLE encoding: one zlib stream for the whole connection, tiles of 64x64, three bytes a pixel.

use flate2::{Decompress, FlushDecompress, Status};

use super::RfbError;
use crate::frame::{Frame, Rect};

const TILE: u32 = 64;

/// The connection's zlib stream.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Unpacks one rectangle into the frame.
    pub(super) fn rect(&mut self, packed: &[u8], rect: Rect, frame: &mut Frame) -> Result<(), RfbError> {
        let plain = self.inflate(packed, rect)?;
        let mut bytes = Bytes(&plain);
        let mut pixels = Vec::with_capacity((TILE * TILE) as usize);
        for y in (0..rect.height).step_by(TILE as usize) {
            for x in (0..rect.width).step_by(TILE as usize) {
                let width = TILE.min(rect.width - x);
                let height = TILE.min(rect.height - y);
                pixels.clear();
                tile(&mut bytes, (width * height) as usize, width as usize, &mut pixels)?;
                for (line, row) in pixels.chunks_exact(width as usize).enumerate() {
                    frame.put_row(rect.x + x, rect.y + y + line as u32, row);
                }
            }
        }
        Ok(())
    }

    /// Inflates up to the largest size that a rectangle can honestly have.
    fn inflate(&mut self, packed: &[u8], rect: Rect) -> Result<Vec<u8>, RfbError> {
        let tiles = rect.width.div_ceil(TILE) as usize * rect.height.div_ceil(TILE) as usize;
        // The worst honest tile: plain runs of length one (4 bytes a pixel), or a palette of 127 colours.
        let limit = rect.width as usize * rect.height as usize * 4 + tiles * (1 + 127 * 3) + 64;
        let mut plain = Vec::new();
        let mut chunk = vec![0_u8; 32 * 1024];
        let mut rest = packed;
        loop {
            let (in_before, out_before) = (self.0.total_in(), self.0.total_out());
            let status = self
                .0
                .decompress(rest, &mut chunk, FlushDecompress::Sync)
                .map_err(|_| RfbError::Zrle("the zlib stream is damaged"))?;
            let consumed = (self.0.total_in() - in_before) as usize;
            let produced = (self.0.total_out() - out_before) as usize;
            rest = rest.get(consumed..).unwrap_or(&[]);
            plain.extend_from_slice(chunk.get(..produced).unwrap_or(&[]));
            if plain.len() > limit {
                return Err(RfbError::Zrle("more data than the rectangle can hold"));
            }
            if status == Status::StreamEnd || (consumed == 0 && produced == 0) {
                return Ok(plain);
            }
            if rest.is_empty() && produced < chunk.len() {
                return Ok(plain);
            }
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Result<u8, RfbError> {
        let (first, rest) = self.0.split_first().ok_or(RfbError::Zrle("a tile is cut short"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn pixel(&mut self) -> Result<u32, RfbError> {
        Ok(u32::from_le_bytes([self.byte()?, self.byte()?, self.byte()?, 0]))
    }

    fn run(&mut self) -> Result<usize, RfbError> {
        let mut length = 1;
        loop {
            let byte = self.byte()?;
            length += usize::from(byte);
            if byte != 255 {
                return Ok(length);
            }
        }
    }
}

/// Decodes one tile of `count` pixels, `width` a row.
fn tile(bytes: &mut Bytes<'_>, count: usize, width: usize, pixels: &mut Vec<u32>) -> Result<(), RfbError> {
    const OVERRUN: RfbError = RfbError::Zrle("a run leaves its tile");
    let kind = bytes.byte()?;
    match kind {
        0 => {
            for _ in 0..count {
                pixels.push(bytes.pixel()?);
            }
        }
        1 => pixels.resize(count, bytes.pixel()?),
        2..=16 => {
            let palette = (0..kind).map(|_| bytes.pixel()).collect::<Result<Vec<_>, _>>()?;
            let bits = match kind {
                2 => 1,
                3 | 4 => 2,
                _ => 4,
            };
            while pixels.len() < count {
                // Each row starts on a byte of its own.
                let mut left = width;
                while left > 0 {
                    let byte = bytes.byte()?;
                    for slot in 0..(8 / bits).min(left) {
                        let index = (byte >> (8 - bits * (slot + 1))) & ((1 << bits) - 1);
                        pixels.push(look_up(&palette, index)?);
                    }
                    left -= (8 / bits).min(left);
                }
            }
        }
        128 => {
            while pixels.len() < count {
                let pixel = bytes.pixel()?;
                let length = bytes.run()?;
                if pixels.len() + length > count {
                    return Err(OVERRUN);
                }
                pixels.resize(pixels.len() + length, pixel);
            }
        }
        130..=255 => {
            let palette = (0..kind - 128).map(|_| bytes.pixel()).collect::<Result<Vec<_>, _>>()?;
            while pixels.len() < count {
                let index = bytes.byte()?;
                let pixel = look_up(&palette, index & 0x7f)?;
                let length = if index & 0x80 == 0 { 1 } else { bytes.run()? };
                if pixels.len() + length > count {
                    return Err(OVERRUN);
                }
                pixels.resize(pixels.len() + length, pixel);
            }
        }
        17..=127 | 129 => return Err(RfbError::Zrle("a tile of an unknown kind")),
    }
    Ok(())
}

fn look_up(palette: &[u32], index: u8) -> Result<u32, RfbError> {
    palette.get(usize::from(index)).copied().ok_or(RfbError::Zrle("a colour that its palette lacks"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn decode(plain: &[u8], width: u32, height: u32) -> Result<Frame, RfbError> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.flush().unwrap();
        let packed = encoder.get_ref().clone();
        let mut frame = Frame::new(width, height).unwrap();
        Inflater::new().rect(&packed, Rect { x: 0, y: 0, width, height }, &mut frame)?;
        Ok(frame)
    }

    #[test]
    fn every_kind_of_tile_is_decoded() {
        let cases: [(&str, Vec<u8>, [u32; 3]); 6] = [
            ("raw", vec![0, 1, 0, 0, 2, 0, 0, 3, 0, 0], [1, 2, 3]),
            ("solid", vec![1, 9, 0, 0], [9, 9, 9]),
            ("packed palette of two", vec![2, 5, 0, 0, 6, 0, 0, 0b0100_0000], [5, 6, 5]),
            ("packed palette of three", vec![3, 5, 0, 0, 6, 0, 0, 7, 0, 0, 0b0001_1000], [5, 6, 7]),
            ("plain runs", vec![128, 4, 0, 0, 1, 8, 0, 0, 0], [4, 4, 8]),
            ("palette runs", vec![130, 4, 0, 0, 8, 0, 0, 0x80, 1, 1], [4, 4, 8]),
        ];
        for (name, plain, expected) in cases {
            assert_eq!(decode(&plain, 3, 1).unwrap().row(0, 0, 3), expected, "{name}");
        }
    }

    #[test]
    fn damaged_tiles_are_errors() {
        for plain in [
            &[0, 1, 0][..],
            &[128, 4, 0, 0, 200],
            &[2, 5, 0, 0],
            &[17],
            &[129],
            &[3, 5, 0, 0, 6, 0, 0, 7, 0, 0, 0xff],
        ] {
            assert!(decode(plain, 3, 1).is_err(), "{plain:?}");
        }
        let bomb = vec![0_u8; 4 << 20];
        assert!(decode(&bomb, 3, 1).is_err(), "a bomb is stopped by the rectangle's size");
    }
}
