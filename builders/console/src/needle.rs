//! Needles: a piece of a picture, looked for on a screen that is no text (graphical installers).
//!
//! A needle is a PNG and the areas of it that count. Each area is looked for around its own place first, then on the
//! whole screen, by the mean difference of its brightness: exact pixels are not needed, so that anti-aliasing and
//! compression of colours do no harm. A pyramid of averages (every level half as wide) makes the search fast: most
//! places are ruled out by a few numbers.

use thiserror::Error;

use crate::frame::{Frame, FrameError, Rect};

/// How much an area may differ when nothing else is asked for.
pub const DEFAULT_TOLERANCE: f64 = 0.02;
/// How many places are looked at more closely.
const CANDIDATES: usize = 48;

/// Why a file is no needle.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NeedleError {
    /// It is no picture of a screen.
    #[error("the needle can't be read")]
    Picture(#[source] FrameError),
    /// An area lies outside the picture, or has nothing in it.
    #[error("the area {}x{} at {},{} does not lie inside the needle", .0.width, .0.height, .0.x, .0.y)]
    Area(Rect),
    /// An area has one colour, or nearly.
    #[error(
        "the area {}x{} at {},{} of the needle has next to nothing in it: every blank place of its colour would be it",
        .0.width, .0.height, .0.x, .0.y
    )]
    Flat(Rect),
}

/// A picture to look for.
#[derive(Clone, Debug)]
pub struct Needle {
    areas: Vec<Area>,
    /// Width and height of the picture that it was cut from.
    pub size: (u32, u32),
}

#[derive(Clone, Debug)]
struct Area {
    place: Rect,
    levels: Vec<Grey>,
}

/// Where a needle was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The first area's place on the screen.
    pub place: Rect,
    /// The mean difference of brightness over all areas (0: equal, 1: black for white).
    pub difference: f64,
}

/// A picture in shades of grey.
#[derive(Clone, Debug)]
struct Grey {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Needle {
    /// Reads a needle from a PNG; without areas all of it counts.
    ///
    /// # Errors
    /// When it is no PNG of a screen's size, or an area has no pixels, lies outside of it, or has nothing in it.
    pub fn from_png(png: &[u8], areas: &[Rect]) -> Result<Self, NeedleError> {
        let frame = Frame::from_png(png).map_err(NeedleError::Picture)?;
        Self::from_frame(&frame, areas)
    }

    /// Cuts a needle from a picture; without areas all of it counts.
    ///
    /// # Errors
    /// When an area lies outside the picture, or has nothing in it by which it could be told from a blank one.
    pub fn from_frame(frame: &Frame, areas: &[Rect]) -> Result<Self, NeedleError> {
        let whole = Rect { x: 0, y: 0, width: frame.width(), height: frame.height() };
        let areas = if areas.is_empty() { vec![whole] } else { areas.to_vec() };
        let areas = areas
            .into_iter()
            .map(|place| {
                if place.width == 0 || place.height == 0 || !frame.holds(place) {
                    return Err(NeedleError::Area(place));
                }
                let grey = Grey::of(frame, place);
                if grey.spread() <= DEFAULT_TOLERANCE {
                    return Err(NeedleError::Flat(place));
                }
                Ok(Area { place, levels: pyramid(grey) })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { areas, size: (frame.width(), frame.height()) })
    }

    /// Looks for the needle: all its areas, each where it stands relative to the first, none differing by more than the
    /// tolerance (0 to 1; see [`DEFAULT_TOLERANCE`]). The best place wins.
    #[must_use]
    pub fn find(&self, frame: &Frame, tolerance: f64) -> Option<Found> {
        let first = self.areas.first()?;
        let screen =
            pyramid(Grey::of(frame, Rect { x: 0, y: 0, width: frame.width(), height: frame.height() }));
        let base = screen.first()?;
        let mut best: Option<Found> = None;
        for (x, y) in first.candidates(&screen) {
            let mut worst = 0.0_f64;
            for area in &self.areas {
                let left = x as i64 + i64::from(area.place.x) - i64::from(first.place.x);
                let top = y as i64 + i64::from(area.place.y) - i64::from(first.place.y);
                let difference = match (usize::try_from(left), usize::try_from(top)) {
                    (Ok(left), Ok(top)) => area.difference(0, base, left, top, f64::INFINITY),
                    _ => 1.0,
                };
                worst = worst.max(difference);
            }
            if worst <= tolerance && best.is_none_or(|best| worst < best.difference) {
                let place = Rect { x: x as u32, y: y as u32, ..first.place };
                best = Some(Found { place, difference: worst });
            }
        }
        best
    }
}

impl Area {
    /// The places where the first area may be, as pixels of the screen: its own place, and the best of a search from
    /// the coarsest level down.
    fn candidates(&self, screen: &[Grey]) -> Vec<(usize, usize)> {
        let own = (self.place.x as usize, self.place.y as usize);
        let top = self.levels.len().min(screen.len()) - 1;
        let Some(coarse) = screen.get(top) else { return vec![own] };
        let Some(needle) = self.levels.get(top) else { return vec![own] };
        if needle.width > coarse.width || needle.height > coarse.height {
            return Vec::new();
        }
        let mut scored: Vec<(f64, usize, usize)> = Vec::new();
        let mut limit = f64::INFINITY;
        for y in 0..=coarse.height - needle.height {
            for x in 0..=coarse.width - needle.width {
                let difference = self.difference(top, coarse, x, y, limit);
                if difference < limit {
                    scored.push((difference, x, y));
                    if scored.len() >= CANDIDATES * 2 {
                        scored.sort_by(|one, two| one.0.total_cmp(&two.0));
                        scored.truncate(CANDIDATES);
                        limit = scored.last().map_or(limit, |last| last.0);
                    }
                }
            }
        }
        scored.sort_by(|one, two| one.0.total_cmp(&two.0));
        scored.truncate(CANDIDATES);
        for level in (0..top).rev() {
            let Some(picture) = screen.get(level) else { continue };
            let mut finer: Vec<(f64, usize, usize)> = scored
                .iter()
                .filter_map(|(_, x, y)| {
                    let around = (0..9)
                        .map(|step| ((2 * x + step % 3).checked_sub(1), (2 * y + step / 3).checked_sub(1)));
                    around
                        .filter_map(|(x, y)| Some((x?, y?)))
                        .map(|(x, y)| (self.difference(level, picture, x, y, f64::INFINITY), x, y))
                        .min_by(|one, two| one.0.total_cmp(&two.0))
                })
                .collect();
            finer.sort_by(|one, two| one.0.total_cmp(&two.0));
            finer.dedup_by_key(|place| (place.1, place.2));
            // The finer the level, the surer the order.
            finer.truncate((CANDIDATES >> (top - level)).max(4));
            scored = finer;
        }
        let mut places: Vec<(usize, usize)> = scored.into_iter().map(|(_, x, y)| (x, y)).collect();
        places.push(own);
        places
    }

    /// The mean difference at a place of one level; 1 outside, and some number above `limit` as soon as that is certain.
    fn difference(&self, level: usize, screen: &Grey, x: usize, y: usize, limit: f64) -> f64 {
        let Some(needle) = self.levels.get(level) else { return 1.0 };
        if x + needle.width > screen.width || y + needle.height > screen.height {
            return 1.0;
        }
        let count = (needle.width * needle.height) as f64 * 255.0;
        let most = if limit.is_finite() { (limit * count) as u64 } else { u64::MAX };
        let mut sum = 0_u64;
        for (row, own) in needle.pixels.chunks_exact(needle.width).enumerate() {
            let start = (y + row) * screen.width + x;
            let other = screen.pixels.get(start..start + needle.width).unwrap_or(&[]);
            let line: u32 = own.iter().zip(other).map(|(one, two)| u32::from(one.abs_diff(*two))).sum();
            sum += u64::from(line);
            if sum > most {
                return 1.0;
            }
        }
        sum as f64 / count
    }
}

impl Grey {
    fn of(frame: &Frame, place: Rect) -> Self {
        let mut pixels = Vec::with_capacity((place.width * place.height) as usize);
        for y in place.y..place.y + place.height {
            pixels.extend(frame.row(place.x, y, place.width).iter().map(|pixel| {
                let [blue, green, red, _] = pixel.to_le_bytes();
                // The usual weights of brightness, in 256ths.
                ((u32::from(red) * 77 + u32::from(green) * 150 + u32::from(blue) * 29) >> 8) as u8
            }));
        }
        Self { width: place.width as usize, height: place.height as usize, pixels }
    }

    /// By how much its pixels differ from their mean, in the mean (0 to 1): what a blank place of its colour differs by.
    fn spread(&self) -> f64 {
        let count = self.pixels.len().max(1) as u64;
        let mean = (self.pixels.iter().map(|pixel| u64::from(*pixel)).sum::<u64>() / count) as u8;
        let sum: u64 = self.pixels.iter().map(|pixel| u64::from(pixel.abs_diff(mean))).sum();
        sum as f64 / (count as f64 * 255.0)
    }

    /// Half as wide and high, each pixel the mean of four.
    fn halved(&self) -> Self {
        let (width, height) = (self.width / 2, self.height / 2);
        let mut pixels = Vec::with_capacity(width * height);
        for two in self.pixels.chunks_exact(self.width.max(1) * 2).take(height) {
            let (upper, lower) = two.split_at(self.width);
            let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
            pixels.extend(pairs.map(|(a, b)| {
                let sum: u16 = a.iter().chain(b).map(|pixel| u16::from(*pixel)).sum();
                (sum / 4) as u8
            }));
        }
        Self { width, height, pixels }
    }
}

/// The picture and its halves, as long as there is enough to tell places apart.
fn pyramid(picture: Grey) -> Vec<Grey> {
    const LEVELS: usize = 4;
    const SMALLEST: usize = 6;
    let mut levels = vec![picture];
    while levels.len() < LEVELS
        && let Some(last) = levels.last()
        && last.width / 2 >= SMALLEST
        && last.height / 2 >= SMALLEST
    {
        let half = last.halved();
        levels.push(half);
    }
    levels
}

#[cfg(test)]
mod tests;
