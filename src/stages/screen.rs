//! The build VM's screen while it runs: pictures for the evidence, and how long it stands still.

use std::time::Duration;

use forge_console::Console;
use forge_machine::Machine;

use crate::engine::Cx;
use crate::event::Event;

/// The screen of the build VM; empty when it could not be had.
#[derive(Debug, Default)]
pub struct Watch {
    console: Option<Console>,
}

impl Watch {
    /// Opens the screen.
    ///
    /// # Errors
    /// When it can't be had, in one line.
    pub async fn open(machine: &dyn Machine) -> Result<Self, String> {
        let display = machine.display().await.map_err(|error| crate::engine::error::chain(&error))?;
        let console = Console::open(display.stream, display.password.as_deref())
            .await
            .map_err(|error| crate::engine::error::chain(&error))?;
        Ok(Self { console: Some(console) })
    }

    /// The console, when there is one.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// How long the screen has not changed; `None` when it can't be seen.
    #[must_use]
    pub fn unchanged_for(&self) -> Option<Duration> {
        self.console.as_ref().filter(|console| console.failure().is_none()).map(Console::unchanged_for)
    }

    /// Takes a picture for the evidence. A failure is told, and no more: no build ends for a picture.
    pub fn picture(&self, cx: &Cx, label: &str) {
        let Some(console) = &self.console else { return };
        let text = console.screen().text().map(|text| text.rows.join("\n").trim_end().to_owned());
        let file = match console.png() {
            Ok(png) => match cx.evidence.write_screen(label, &png) {
                Ok(name) => name,
                Err(error) => {
                    cx.warn(crate::engine::error::chain(&error), "");
                    String::new()
                }
            },
            Err(error) => {
                tracing::debug!(%error, "no picture of the screen");
                String::new()
            }
        };
        cx.events.emit(Event::Screen { label: label.to_owned(), file, text });
    }

    /// What the screen says, as lines for an error; empty when it can't be read.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        let Some(console) = &self.console else { return Vec::new() };
        let screen = console.screen();
        let Some(text) = screen.text() else { return vec![format!("the screen: {screen}")] };
        let lines: Vec<&String> = text.rows.iter().filter(|line| !line.is_empty()).collect();
        let skip = lines.len().saturating_sub(6);
        lines.into_iter().skip(skip).map(|line| format!("the screen: {line}")).collect()
    }
}
