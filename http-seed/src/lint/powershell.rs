//! Scripts for Windows: what Windows PowerShell 5 reads another way than it was meant.

use super::Found;
use crate::answers::BYTE_ORDER_MARK;

/// Windows PowerShell 5 takes a file without a byte order mark for the system's code page (about_Character_Encoding).
pub(super) fn lint(text: &str) -> Vec<Found> {
    if text.starts_with(BYTE_ORDER_MARK) {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_ascii())
        .map(|(index, _)| {
            let message = "a character that is not ASCII, which Windows PowerShell 5 reads as others";
            Found::new(
                index + 1,
                message,
                "save the file as UTF-8 with a byte order mark, or write it in ASCII",
            )
        })
        .collect()
}
