//! Small things that have a budget: `cargo bench --bench micro` prints the median and the worst of many runs of each.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use forge::config::{load_given, load_profile};
use forge::ui;
use forge_console::frame::Frame;
use forge_console::needle::DEFAULT_TOLERANCE;
use forge_console::{Needle, Screen, font};

/// How often each is run.
const RUNS: usize = 50;

fn main() -> anyhow::Result<()> {
    let rows = [
        ("validate 20 profiles", 50, validate()?),
        ("text grid of a 1280x800 frame", 2, text_grid_again()?),
        ("the same for the first time: cells and font are found", 50, text_grid(1280, 800, 8)?),
        ("text grid of a 720x400 frame", 2, text_grid(720, 400, 9)?),
        ("a desktop without text 1280x800: every font and offset is tried", 200, desktop()?),
        ("needle search on 1280x800", 30, needle((120, 40))?),
        ("the same for a needle of 16x16", 30, needle((16, 16))?),
        ("the same for one of 11x11: no coarser picture helps", 30, needle((11, 11))?),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, budget, mut times)| {
            times.sort();
            let ms = |time: Option<&Duration>| {
                time.map_or_else(String::new, |time| format!("{:.2}", time.as_secs_f64() * 1000.0))
            };
            vec![name.to_owned(), ms(times.get(times.len() / 2)), ms(times.last()), budget.to_string()]
        })
        .collect();
    ui::data(&ui::table::table(&["WHAT", "MEDIAN MS", "WORST MS", "BUDGET MS"], &rows));
    Ok(())
}

fn timed(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// What `forge validate` does with twenty profiles, each with its base.
fn validate() -> anyhow::Result<Vec<Duration>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("os-profiles/debian-12-typed.toml");
    timed(|| {
        let (given, _) = load_given(&[], &[], BTreeMap::new());
        for _ in 0..20 {
            let (profile, findings) = load_profile(&file, &given);
            ensure!(findings.is_empty(), "the profile is not sound: {findings:?}");
            black_box(profile.context("the profile can't be read")?);
        }
        Ok(())
    })
}

/// Reads a whole screen of text, layout and font to be found, as after a change of everything.
fn text_grid(width: u32, height: u32, pitch: u32) -> anyhow::Result<Vec<Duration>> {
    let frame = text_frame(width, height, pitch)?;
    timed(|| {
        black_box(Screen::read(black_box(&frame)));
        Ok(())
    })
}

/// Reads a whole screen again, every cell of it, where layout and font are known from the last time.
fn text_grid_again() -> anyhow::Result<Vec<Duration>> {
    let frame = text_frame(1280, 800, 8)?;
    let before = Screen::read(&frame);
    timed(|| {
        black_box(Screen::read_after(black_box(&frame), Some(&before), None));
        Ok(())
    })
}

/// Reads a desktop of flat areas and their edges, on which nothing is text: what a console does at most a quarter of the
/// time while such a picture goes on changing.
fn desktop() -> anyhow::Result<Vec<Duration>> {
    let mut frame = Frame::new(1280, 800)?;
    for y in 0..800_u32 {
        let row: Vec<u32> = (0..1280_u32)
            .map(|x| {
                let window = (203..1001).contains(&x) && (121..703).contains(&y);
                match (window, y < 151, x / 41 % 2 == 0 && y / 23 % 3 == 0) {
                    (true, true, _) => 0x0020_4080,
                    (true, false, true) => 0x00c8_c8c8,
                    (true, false, false) => 0x00f0_f0f0,
                    (false, ..) => 0x0000_5a9e,
                }
            })
            .collect();
        frame.put_row(0, y, &row);
    }
    ensure!(Screen::read(&frame).text().is_none(), "text was read on a desktop without any");
    timed(|| {
        black_box(Screen::read(black_box(&frame)));
        Ok(())
    })
}

/// Looks for a piece of this size on a desktop that has it, and for one that it has not.
fn needle((width, height): (u32, u32)) -> anyhow::Result<Vec<Duration>> {
    let mut frame = Frame::new(1280, 800)?;
    for y in 0..800_u32 {
        let row: Vec<u32> = (0..1280_u32)
            .map(|x| match x.checked_sub(1003).is_some_and(|right| y.checked_sub(611) == Some(right)) {
                // A stroke, as in every picture that people look for: a piece without any is refused.
                true => 0x00ff_ffff,
                false => (((x / 17 * 31 + y / 13 * 57) % 7 * 30) << 16) | ((x / 6) << 8) | (y / 4),
            })
            .collect();
        frame.put_row(0, y, &row);
    }
    let mut button = Frame::new(width, height)?;
    for y in 0..height {
        button.put_row(0, y, frame.row(1003, 611 + y, width));
    }
    let there = Needle::from_frame(&button, &[])?;
    for y in height / 4..height * 3 / 4 {
        button.put_row(width / 8, y, &vec![0x00ff_ffff; (width * 3 / 4) as usize]);
    }
    let missing = Needle::from_frame(&button, &[])?;
    timed(|| {
        ensure!(
            there.find(&frame, DEFAULT_TOLERANCE).is_some_and(|found| found.place.x == 1003),
            "not found"
        );
        ensure!(black_box(missing.find(&frame, DEFAULT_TOLERANCE)).is_none(), "found what is not there");
        Ok(())
    })
    // Two searches a run.
    .map(|times| times.into_iter().map(|time| time / 2).collect())
}

/// A screen full of text.
fn text_frame(width: u32, height: u32, pitch: u32) -> anyhow::Result<Frame> {
    let mut frame = Frame::new(width, height)?;
    let (columns, lines) = (width / pitch, height / 16);
    let font = font::by_name("vga-8x16").context("the font")?;
    let pictures: Vec<Vec<u16>> =
        ('!'..='~').map(|character| font.picture(character).unwrap_or(&[0; 16]).to_vec()).collect();
    for line in 0..lines {
        for row in 0..16 {
            let pixels: Vec<u32> = (0..columns * pitch)
                .map(|x| {
                    let picture = &pictures[((x / pitch + line) as usize) % pictures.len()];
                    let bits = picture.get(row as usize).copied().unwrap_or(0);
                    let on = x % pitch < 8 && bits >> (7 - x % pitch) & 1 == 1;
                    if on { 0x00aa_aaaa } else { 0 }
                })
                .collect();
            frame.put_row(0, line * 16 + row, &pixels);
        }
    }
    let read = Screen::read(&frame);
    ensure!(read.contains("!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEF"), "the screen can't be read");
    Ok(frame)
}
