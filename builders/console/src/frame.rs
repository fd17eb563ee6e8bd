//! The picture a display shows: pixels, what changed since the last look, and its PNG.
//!
//! Invariants: `pixels.len() == width * height`, both sides at most [`MAX_SIDE`] and the area at most
//! [`MAX_PIXELS`]; every method clips or refuses coordinates outside.

use std::collections::HashMap;

use thiserror::Error;

/// The longest side of a picture, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// The largest area of a picture, in pixels (64 MiB of memory).
pub const MAX_PIXELS: u32 = 16_777_216;

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Rect {
    /// The smallest rectangle that holds both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let x = self.x.min(other.x);
        let y = self.y.min(other.y);
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        Self { x, y, width: right - x, height: bottom - y }
    }
}

/// Why a picture can't be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The display claims a size that no display has.
    #[error("a screen of {width}x{height} pixels is not plausible")]
    Size {
        /// Claimed width in pixels.
        width: u32,
        /// Claimed height in pixels.
        height: u32,
    },
    /// The PNG encoder failed.
    #[error("the picture can't be written as PNG")]
    Png(#[source] png::EncodingError),
    /// It is no PNG.
    #[error("the picture is no readable PNG")]
    NoPng(#[source] png::DecodingError),
    /// It is of a kind that screens are not.
    #[error("the picture is no PNG of 8 bits a colour")]
    Kind,
}

/// The picture a display shows, one `0x00RRGGBB` per pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
    dirty: Option<Rect>,
}

impl Frame {
    /// Makes a black picture, all of it dirty.
    ///
    /// # Errors
    /// When the size is beyond [`MAX_SIDE`] or [`MAX_PIXELS`].
    pub fn new(width: u32, height: u32) -> Result<Self, FrameError> {
        let area = width.checked_mul(height).filter(|area| *area <= MAX_PIXELS);
        match area {
            Some(area) if width <= MAX_SIDE && height <= MAX_SIDE => Ok(Self {
                width,
                height,
                pixels: vec![0; area as usize],
                dirty: Some(Rect { x: 0, y: 0, width, height }),
            }),
            _ => Err(FrameError::Size { width, height }),
        }
    }

    /// Reads a PNG. Transparency is left out.
    ///
    /// # Errors
    /// When it is no PNG, or larger than a display.
    pub fn from_png(file: &[u8]) -> Result<Self, FrameError> {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(FrameError::NoPng)?;
        let mut frame = Self::new(reader.info().width, reader.info().height)?;
        let mut bytes = vec![0; reader.output_buffer_size().ok_or(FrameError::Kind)?];
        let info = reader.next_frame(&mut bytes).map_err(FrameError::NoPng)?;
        for (row, y) in bytes.chunks_exact(info.line_size.max(1)).zip(0..frame.height) {
            let pixels: Vec<u32> = row
                .chunks_exact(info.color_type.samples())
                .map(|pixel| match *pixel {
                    [red, green, blue, ..] => u32::from_be_bytes([0, red, green, blue]),
                    [grey, ..] => u32::from_be_bytes([0, grey, grey, grey]),
                    [] => 0,
                })
                .collect();
            frame.put_row(0, y, &pixels);
        }
        Ok(frame)
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// One row of pixels from `x` on, `width` of them; empty when outside.
    #[must_use]
    pub fn row(&self, x: u32, y: u32, width: u32) -> &[u32] {
        if y >= self.height || x.saturating_add(width) > self.width {
            return &[];
        }
        let start = (y * self.width + x) as usize;
        self.pixels.get(start..start + width as usize).unwrap_or(&[])
    }

    /// The rows of a rectangle, from its top to where the picture ends; none when it is wider than that.
    pub(crate) fn lines_of(&self, x: u32, y: u32, width: u32, height: u32) -> impl Iterator<Item = &[u32]> {
        let start = (y as usize * self.width as usize).saturating_add(x as usize);
        let inside = x.saturating_add(width) <= self.width && y < self.height;
        let from = if inside { self.pixels.get(start..) } else { None };
        let rows = from.unwrap_or(&[]).chunks((self.width as usize).max(1)).take(height as usize);
        rows.map_while(move |row| row.get(..width as usize))
    }

    /// Whether the rectangle lies inside the picture.
    #[must_use]
    pub fn holds(&self, rect: Rect) -> bool {
        rect.x.checked_add(rect.width).is_some_and(|right| right <= self.width)
            && rect.y.checked_add(rect.height).is_some_and(|bottom| bottom <= self.height)
    }

    /// Writes one row of pixels; only those that differ make it dirty.
    pub fn put_row(&mut self, x: u32, y: u32, row: &[u32]) {
        let width = u32::try_from(row.len()).unwrap_or(u32::MAX);
        if width == 0 || !self.holds(Rect { x, y, width, height: 1 }) {
            return;
        }
        let start = (y * self.width + x) as usize;
        let Some(old) = self.pixels.get_mut(start..start + row.len()) else { return };
        let Some(first) = old.iter().zip(row).position(|(a, b)| a != b) else { return };
        let last = old.iter().zip(row).rposition(|(a, b)| a != b).unwrap_or(first);
        old.copy_from_slice(row);
        let changed = Rect { x: x + first as u32, y, width: (last - first) as u32 + 1, height: 1 };
        self.mark(changed);
    }

    /// Copies a rectangle from elsewhere in the picture; the two may overlap.
    pub fn copy(&mut self, from_x: u32, from_y: u32, to: Rect) {
        let from = Rect { x: from_x, y: from_y, ..to };
        if to.width == 0 || to.height == 0 || !self.holds(from) || !self.holds(to) {
            return;
        }
        let offsets: Box<dyn Iterator<Item = u32>> =
            if from_y < to.y { Box::new((0..to.height).rev()) } else { Box::new(0..to.height) };
        for offset in offsets {
            let source = ((from_y + offset) * self.width + from_x) as usize;
            let target = ((to.y + offset) * self.width + to.x) as usize;
            self.pixels.copy_within(source..source + to.width as usize, target);
        }
        self.mark(to);
    }

    /// What changed since the last call, as one rectangle.
    pub fn take_dirty(&mut self) -> Option<Rect> {
        self.dirty.take()
    }

    fn mark(&mut self, rect: Rect) {
        self.dirty = Some(self.dirty.map_or(rect, |dirty| dirty.union(rect)));
    }

    /// The picture as a PNG file: with a palette where it has at most 256 colours, as text screens do, else 8-bit RGB.
    ///
    /// # Errors
    /// When the encoder fails, which an empty picture (0x0) makes it do.
    pub fn png(&self) -> Result<Vec<u8>, FrameError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let bytes = match self.indexed() {
            Some((palette, indices)) => {
                encoder.set_color(png::ColorType::Indexed);
                encoder.set_palette(palette.into_iter().flat_map(rgb).collect::<Vec<u8>>());
                indices
            }
            None => {
                encoder.set_color(png::ColorType::Rgb);
                self.pixels.iter().copied().flat_map(rgb).collect()
            }
        };
        let mut writer = encoder.write_header().map_err(FrameError::Png)?;
        writer.write_image_data(&bytes).map_err(FrameError::Png)?;
        writer.finish().map_err(FrameError::Png)?;
        Ok(file)
    }

    /// The colours and each pixel's number among them; `None` when a palette can't hold them.
    fn indexed(&self) -> Option<(Vec<u32>, Vec<u8>)> {
        let mut palette: Vec<u32> = Vec::new();
        let mut numbers = HashMap::new();
        let mut last = None;
        let mut indices = Vec::with_capacity(self.pixels.len());
        for pixel in &self.pixels {
            let number = match last {
                Some((colour, number)) if colour == *pixel => number,
                _ => match numbers.get(pixel) {
                    Some(number) => *number,
                    None => {
                        let number = u8::try_from(palette.len()).ok()?;
                        palette.push(*pixel);
                        numbers.insert(*pixel, number);
                        number
                    }
                },
            };
            last = Some((*pixel, number));
            indices.push(number);
        }
        Some((palette, indices))
    }

    /// The picture made smaller so that it fits, its sides in proportion; each pixel is the mean of those it stands for. A
    /// picture that fits already stays as it is.
    #[must_use]
    pub fn shrunk(&self, width: u32, height: u32) -> Self {
        let factor = self.width.div_ceil(width.max(1)).max(self.height.div_ceil(height.max(1))).max(1);
        if factor == 1 {
            return self.clone();
        }
        let (new_width, new_height) = (self.width / factor, self.height / factor);
        let mut pixels = Vec::with_capacity((new_width * new_height) as usize);
        for y in 0..new_height {
            for x in 0..new_width {
                let mut sums = [0_u32; 3];
                for row in y * factor..(y + 1) * factor {
                    for pixel in self.row(x * factor, row, factor) {
                        for (sum, colour) in sums.iter_mut().zip(rgb(*pixel)) {
                            *sum += u32::from(colour);
                        }
                    }
                }
                let [red, green, blue] = sums.map(|sum| sum / (factor * factor));
                pixels.push(red << 16 | green << 8 | blue);
            }
        }
        Self { width: new_width, height: new_height, pixels, dirty: None }
    }
}

/// Red, green and blue of a pixel.
fn rgb(pixel: u32) -> [u8; 3] {
    let [blue, green, red, _] = pixel.to_le_bytes();
    [red, green, blue]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_marks_only_the_pixels_that_differ() {
        let mut frame = Frame::new(8, 2).unwrap();
        frame.take_dirty();
        frame.put_row(0, 1, &[0, 0, 7, 0, 7, 0, 0, 0]);
        assert_eq!(frame.take_dirty(), Some(Rect { x: 2, y: 1, width: 3, height: 1 }));
        frame.put_row(0, 1, &[0, 0, 7, 0, 7, 0, 0, 0]);
        assert_eq!(frame.take_dirty(), None);
    }

    #[test]
    fn an_overlapping_copy_moves_rows_in_the_safe_order() {
        let mut frame = Frame::new(1, 4).unwrap();
        for (y, value) in [1, 2, 3, 4].into_iter().enumerate() {
            frame.put_row(0, y as u32, &[value]);
        }
        frame.copy(0, 0, Rect { x: 0, y: 1, width: 1, height: 3 });
        let column: Vec<u32> = (0..4).map(|y| frame.row(0, y, 1)[0]).collect();
        assert_eq!(column, [1, 1, 2, 3]);
    }

    #[test]
    fn what_is_outside_is_ignored_and_absurd_sizes_are_refused() {
        let mut frame = Frame::new(4, 4).unwrap();
        frame.put_row(3, 3, &[1, 2]);
        frame.copy(2, 2, Rect { x: 0, y: 0, width: 3, height: 3 });
        assert_eq!(frame.row(3, 3, 1), [0]);
        assert!(frame.row(4, 0, 1).is_empty());
        assert!(Frame::new(65_535, 65_535).is_err());
        assert!(Frame::new(16_385, 1).is_err());
    }

    #[test]
    fn the_png_decodes_to_the_same_colours() {
        let mut frame = Frame::new(2, 1).unwrap();
        frame.put_row(0, 0, &[0x0012_3456, 0x00ff_ffff]);
        let file = frame.png().unwrap();
        assert_eq!(Frame::from_png(&file).unwrap().row(0, 0, 2), frame.row(0, 0, 2));
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        assert_eq!(reader.info().palette.as_deref(), Some(&[0x12, 0x34, 0x56, 0xff, 0xff, 0xff][..]));
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 1]);
    }

    #[test]
    fn a_picture_with_more_colours_than_a_palette_holds_decodes_to_the_same() {
        let mut frame = Frame::new(300, 2).unwrap();
        frame.put_row(0, 1, &(0..300).map(|x| x * 7).collect::<Vec<u32>>());
        let back = Frame::from_png(&frame.png().unwrap()).unwrap();
        assert_eq!((back.row(0, 0, 300), back.row(0, 1, 300)), (frame.row(0, 0, 300), frame.row(0, 1, 300)));
    }

    #[test]
    fn a_shrunk_picture_fits_and_keeps_its_mean() {
        let mut frame = Frame::new(8, 4).unwrap();
        frame.put_row(0, 0, &[0x0040_0000, 0, 0, 0x0000_0080]);
        let small = frame.shrunk(4, 4);
        assert_eq!((small.width(), small.height()), (4, 2));
        assert_eq!(small.row(0, 0, 2), [0x0010_0000, 0x20]);
        assert_eq!(frame.shrunk(80, 40), frame);
    }
}
