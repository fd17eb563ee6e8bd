//! `forge screen show`: what a build's screen showed, from the recording in its evidence.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use forge_console::{Recording, Shot};

use super::REFUSED;
use super::options::Global;
use crate::engine::error::chain;
use crate::event::phrase::time;
use crate::stages::record::FOLDER;
use crate::ui::{self, screen};

/// A screen that stands still is shown no longer than this.
const LONGEST: Duration = Duration::from_secs(2);

/// Options of `forge screen show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// A folder of evidence, or the recording in it
    folder: PathBuf,
    /// How many times faster than it was
    #[arg(long, value_name = "N", default_value_t = 4.0, value_parser = positive)]
    speed: f64,
    /// Only what was on the screen so many seconds after the build began
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    at: Option<f64>,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0.0 && *number < 1e9)
        .ok_or_else(|| "a number above 0 is needed".to_owned())
}

/// Plays it on a terminal, and prints its texts elsewhere; gives the exit code.
pub fn show(global: &Global, args: &ShowArgs) -> u8 {
    let inside = args.folder.join(FOLDER);
    let folder: &Path = if inside.is_dir() { &inside } else { &args.folder };
    let recording = match Recording::open(folder) {
        Ok(recording) if recording.shots.is_empty() => {
            ui::say(&format!(
                "error: the recording in {} is empty: its screen showed nothing",
                folder.display()
            ));
            return REFUSED;
        }
        Ok(recording) => recording,
        Err(_) if args.folder.join("events.jsonl").is_file() => {
            let shown = args.folder.display();
            ui::say(&format!(
                "error: the build of {shown} has no recording: it ended before a screen was looked at"
            ));
            return REFUSED;
        }
        Err(error) => {
            ui::say(&format!(
                "error: {}\n    help: name the folder of evidence that a build printed, with `{FOLDER}` in it",
                chain(&error)
            ));
            return REFUSED;
        }
    };
    let shots: Vec<&Shot> = match args.at {
        Some(seconds) => {
            let until = recording.shots.iter().take_while(|shot| shot.t_ms as f64 <= seconds * 1000.0);
            until.last().or(recording.shots.first()).into_iter().collect()
        }
        None => recording.shots.iter().collect(),
    };
    let plays = !global.json && !global.quiet && args.at.is_none() && screen::Canvas::is_possible();
    let outcome =
        if plays { play(&recording, &shots, args.speed) } else { print(global, &recording, &shots) };
    match outcome {
        Ok(()) => 0,
        Err(message) => {
            ui::say(&format!("error: {message}"));
            REFUSED
        }
    }
}

/// The lines of a shot, its picture read only when there is no text.
fn lines(
    recording: &Recording,
    shot: &Shot,
    size: (usize, usize),
    ink: screen::Ink,
) -> Result<Vec<String>, String> {
    let picture = match shot.text {
        Some(_) => None,
        None => recording.picture(shot).map_err(|error| chain(&error))?,
    };
    Ok(screen::lines(shot, picture.as_ref(), size, ink))
}

fn play(recording: &Recording, shots: &[&Shot], speed: f64) -> Result<(), String> {
    let mut canvas = screen::Canvas::new();
    for (number, shot) in shots.iter().enumerate() {
        let (columns, height) = canvas.size();
        let mut drawn = lines(recording, shot, (columns, height.saturating_sub(1)), canvas.ink())?;
        drawn.push(format!("{} of {}, {} after the build began", number + 1, shots.len(), time(shot.t_ms)));
        canvas.draw(&drawn);
        if let Some(next) = shots.get(number + 1) {
            let pause = Duration::from_millis(next.t_ms.saturating_sub(shot.t_ms)).div_f64(speed);
            std::thread::sleep(pause.min(LONGEST));
        }
    }
    Ok(())
}

fn print(global: &Global, recording: &Recording, shots: &[&Shot]) -> Result<(), String> {
    for shot in shots {
        if global.json {
            ui::data(&format!("{}\n", serde_json::to_string(shot).map_err(|error| error.to_string())?));
            continue;
        }
        let name = shot.file.as_deref().map(|file| format!(", {file}")).unwrap_or_default();
        let body = lines(recording, shot, (4096, 4096), screen::Ink::Plain)?;
        ui::data(&format!("[{}{name}]\n{}\n", time(shot.t_ms), body.join("\n")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_above_nothing() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "fast", "nan", "inf"] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }
}
