//! `forge screen`: pictures of guests' screens. `learn` teaches forge characters that it can't read yet, `show` replays
//! a recording.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use forge_console::font::{self, Font};
use forge_console::frame::Frame;
use forge_console::{Screen, ScreenText};

use super::options::Global;
use super::show::{ShowArgs, show};
use super::{REFUSED, USAGE};
use crate::engine::error::chain;
use crate::ui;

/// What to do with pictures of screens.
#[derive(Clone, Debug, Subcommand)]
pub enum ScreenCommand {
    /// Learns the characters of a picture, by the text that stands on it
    Learn(LearnArgs),
    /// Replays what a build's screen showed, from its evidence
    Show(ShowArgs),
}

/// Options of `forge screen learn`.
#[derive(Clone, Debug, Args)]
pub struct LearnArgs {
    /// The picture, a PNG as the evidence holds them
    picture: PathBuf,
    /// A file with the text of the screen's lines, from the first cell on
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Width and height of a cell in pixels [default: as far as the picture can be read]
    #[arg(long, value_name = "WxH", value_parser = pair)]
    cell: Option<(u32, u32)>,
    /// Left and top of the first cell [default: as far as the picture can be read, else 0,0]
    #[arg(long, value_name = "X,Y", value_parser = pair)]
    at: Option<(u32, u32)>,
    /// The name that the font gets; what is known under it is added to
    #[arg(long, default_value = "own")]
    name: String,
}

fn pair(text: &str) -> Result<(u32, u32), String> {
    let numbers =
        text.split_once(['x', ',']).and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
    numbers.ok_or_else(|| "two numbers are needed, as 8x16 or 0,0".to_owned())
}

/// Where learnt fonts are.
fn folder(global: &Global) -> PathBuf {
    global.state().join("fonts")
}

/// Has every screen read with the fonts that were learnt on this machine. A font that can't be read is told and left out.
pub fn use_learnt_fonts(global: &Global) {
    match font::load_folder(&folder(global)) {
        Ok(fonts) => font::add(fonts),
        Err(error) => ui::say(&format!("warning: {}", chain(&error))),
    }
}

/// Runs it; gives the exit code.
pub fn screen(global: &Global, command: &ScreenCommand) -> u8 {
    let args = match command {
        ScreenCommand::Learn(args) => args,
        ScreenCommand::Show(args) => return show(global, args),
    };
    match learn(&folder(global), args) {
        Ok(said) => {
            ui::data(&said);
            0
        }
        Err(Refusal { code, message }) => {
            ui::say(&format!("error: {message}"));
            code
        }
    }
}

struct Refusal {
    code: u8,
    message: String,
}

fn refused(message: String) -> Refusal {
    Refusal { code: REFUSED, message }
}

fn learn(folder: &Path, args: &LearnArgs) -> Result<String, Refusal> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| refused(format!("{path} can't be read: {error}"))
    };
    let png = std::fs::read(&args.picture).map_err(unreadable(&args.picture))?;
    let text = std::fs::read_to_string(&args.text).map_err(unreadable(&args.text))?;
    let frame = Frame::from_png(&png)
        .map_err(|error| refused(format!("{}: {}", args.picture.display(), chain(&error))))?;
    let read = Screen::read(&frame);
    let first = read.text().map(|text| text.cell_rect(0, 0));
    let (width, height) = match (args.cell, first) {
        (Some(size), _) => size,
        // VGA's text modes have a ninth column that no font has.
        (None, Some(cell)) => (if cell.width == 9 { 8 } else { cell.width }, cell.height),
        (None, None) => {
            return Err(Refusal {
                code: USAGE,
                message: "nothing on the picture can be read yet: say the size of a cell with --cell 8x16"
                    .to_owned(),
            });
        }
    };
    let sizes = font::sizes();
    if !sizes.contains(&(width, height)) {
        let sizes: Vec<String> = sizes.iter().map(|(width, height)| format!("{width}x{height}")).collect();
        return Err(Refusal {
            code: USAGE,
            message: format!(
                "cells of {width}x{height} are not looked for on screens; known sizes are {}",
                sizes.join(", ")
            ),
        });
    }
    let at = args.at.or(first.map(|cell| (cell.x, cell.y))).unwrap_or((0, 0));
    let pitch = if args.cell.is_none() { first.map_or(width, |cell| cell.width) } else { width };
    if args.name.is_empty() || args.name.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c))
    {
        let message = format!("`{}` is no name for a font: letters, digits, `-`, `_` and `.` are", args.name);
        return Err(refused(message));
    }
    let file = folder.join(format!("{}-{width}x{height}.font", args.name));
    let mut font = match std::fs::read(&file) {
        Ok(packed) => Font::unpack(&args.name, &packed).map_err(|error| refused(chain(&error)))?,
        Err(_) => Font::new(&args.name, width, height),
    };
    let lines: Vec<&str> = text.lines().collect();
    let new = font.learn(&frame, at, pitch, &lines);
    if new == 0 && font.is_empty() {
        return Err(refused(
            "no character was found in the picture: is its text where `--at` says, and as in the file?"
                .into(),
        ));
    }
    let packed = font.pack().map_err(|error| refused(chain(&error)))?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, packed))
        .map_err(|error| refused(format!("{} can't be written: {error}", file.display())))?;
    font::add(vec![font]);
    let after = Screen::read(&frame);
    Ok(format!(
        "{new} new pictures of characters in {}\n{}\n",
        file.display(),
        after.text().map_or_else(|| after.to_string(), ScreenText::to_string)
    ))
}
