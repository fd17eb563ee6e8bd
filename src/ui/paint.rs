//! Colours for stderr and stdout.

use console::Style;

use crate::event::phrase::Tone;

/// Colours a text for stderr, when colours are on. No meaning is carried by the colour alone.
#[must_use]
pub fn paint(tone: Tone, text: &str) -> String {
    painted(Style::new().for_stderr(), tone, text)
}

/// The same for stdout.
#[must_use]
pub fn paint_data(tone: Tone, text: &str) -> String {
    painted(Style::new().for_stdout(), tone, text)
}

fn painted(style: Style, tone: Tone, text: &str) -> String {
    let style = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Faint => style.dim(),
        Tone::Good => style.green(),
        Tone::Warn => style.yellow(),
        Tone::Bad => style.red().bold(),
    };
    style.apply_to(text).to_string()
}
