//! Finds typed text on a screen: cell by cell from where it began, over the line breaks of whoever shows it.
//!
//! Three ways to break a line are known: at the right edge of the screen (BIOS, isolinux, the kernel's console,
//! shells), in an editor's box, whose lines begin and end some columns from the edge and may carry a marker
//! (GRUB: `\`) at the end, and in a terminal that stands in the middle of a wider screen (GRUB under UEFI: 100 columns of
//! 160), whose lines all begin in the same column. Which one it is need not be known: the first two are tried at each cell
//! near the edge, the third and a fresh line where the rest of a line is blank.

use std::collections::HashSet;

use crate::screen::ScreenText;

/// How many columns from an edge of the screen a line may break or begin.
const MARGIN: usize = 12;
/// How much of what followed the typing place is compared, in characters.
const TAIL: usize = 16;

/// A place on the screen: line and column.
pub(super) type Place = (usize, usize);

/// How far an expected text was found, and the place behind its last character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) length: usize,
    pub(super) end: Place,
}

/// Reads the longest beginning of `expected` that stands on the screen from `start` on.
pub(super) fn read(text: &ScreenText, start: Place, expected: &[char]) -> Found {
    let mut best = Found { length: 0, end: start };
    let mut seen = HashSet::new();
    let mut open = vec![(start, 0)];
    while let Some((place, length)) = open.pop() {
        if !seen.insert((place, length)) {
            continue;
        }
        if length > best.length {
            best = Found { length, end: place };
        }
        let Some(wanted) = expected.get(length) else { break };
        for continuation in breaks(text, place) {
            if at(text, continuation) == Some(*wanted) {
                open.push(((continuation.0, continuation.1 + 1), length + 1));
            }
        }
        // Pushed last, so tried first: a line goes on where it can.
        if at(text, place) == Some(*wanted) {
            open.push(((place.0, place.1 + 1), length + 1));
        }
    }
    best
}

/// Where the text may go on when its line ends at `place`.
fn breaks(text: &ScreenText, (row, column): Place) -> Vec<Place> {
    if row + 1 >= text.rows.len() {
        return Vec::new();
    }
    if column + MARGIN < text.cols {
        // Syslinux 6.04 begins a new line after 80 characters, wherever its prompt made the line begin.
        let rest_is_blank = (column..text.cols).all(|column| at(text, (row, column)) == Some(' '));
        let mut places = if rest_is_blank { vec![(row + 1, 0)] } else { Vec::new() };
        places.extend(terminal_break(text, (row, column)).filter(|_| rest_is_blank));
        return places;
    }
    let marker = usize::from(at(text, (row, column)) == Some('\\'));
    if !(column + marker..text.cols).all(|column| at(text, (row, column)).is_none_or(is_frame)) {
        return Vec::new();
    }
    let mut lefts: Vec<usize> = (0..MARGIN)
        .take_while(|left| (0..*left).all(|column| at(text, (row + 1, column)).is_none_or(is_frame)))
        .collect();
    lefts.reverse();
    lefts.into_iter().map(|left| (row + 1, left)).chain(terminal_break(text, (row, column))).collect()
}

/// Where a line goes on that ends at `place` near the right edge of a terminal in the middle of the screen.
fn terminal_break(text: &ScreenText, (row, column): Place) -> Option<Place> {
    let left = left_edge(text, row);
    (left >= MARGIN && column + left + MARGIN >= text.cols).then_some((row + 1, left))
}

/// Where a line begins: 0, or the left edge of a terminal in the middle of the screen.
fn left_edge(text: &ScreenText, row: usize) -> usize {
    (0..text.cols).find(|column| at(text, (row, *column)).is_some_and(|c| !is_frame(c))).unwrap_or(0)
}

/// Blank, or part of a box around the text.
fn is_frame(character: char) -> bool {
    character == ' '
        || character == '|'
        || ('─'..='▟').contains(&character)
        || ('↑'..='↓').contains(&character)
}

/// Whether the cursor may stand at `cursor` when the text ends at `end`: there, or on the next line after a break.
pub(super) fn is_behind(text: &ScreenText, end: Place, cursor: Place) -> bool {
    cursor == end
        || (end.1 + MARGIN >= text.cols && cursor.0 == end.0 + 1 && cursor.1 < MARGIN)
        || terminal_break(text, end) == Some(cursor)
}

pub(super) fn at(text: &ScreenText, (row, column): Place) -> Option<char> {
    text.cell(row, column).map(|cell| cell.character)
}

/// What stands from `start` to the end of its line, without frame and line-break marker; a blank when nothing does.
pub(super) fn tail(text: &ScreenText, start: Place) -> Vec<char> {
    let mut tail: Vec<char> = (start.1..text.cols).filter_map(|column| at(text, (start.0, column))).collect();
    while tail.last().is_some_and(|last| is_frame(*last)) {
        tail.pop();
    }
    if start.1 + tail.len() + MARGIN > text.cols && tail.last() == Some(&'\\') {
        tail.pop();
    }
    tail.truncate(TAIL);
    // What a dialogue fills its field with gives way to what is typed there; the cursor may hide the first of it.
    let filled = tail.iter().skip(1).all(|character| *character == '_');
    if filled && (tail.first() == Some(&'_') || (tail.len() > 1 && tail.first() == Some(&' '))) {
        tail = vec!['_'];
    }
    if tail.is_empty() {
        tail.push(' ');
    }
    tail
}

/// The text on the screen from `start` on, over as many line breaks as `length` characters need; for errors.
pub(super) fn seen(text: &ScreenText, start: Place, length: usize) -> String {
    let mut seen = String::new();
    let mut row = start.0;
    let mut column = start.1;
    while seen.chars().count() < length && row < text.rows.len() {
        let line: Vec<char> = (column..text.cols).filter_map(|column| at(text, (row, column))).collect();
        let line: String = line.into_iter().collect();
        let line = line.trim_end_matches(is_frame);
        let end = column + line.chars().count();
        let wraps = end + MARGIN > text.cols || terminal_break(text, (row, end)).is_some();
        seen.push_str(if wraps { line.trim_end_matches('\\') } else { line });
        if !wraps {
            break;
        }
        row += 1;
        column = left_edge(text, row);
    }
    seen.chars().take(length + TAIL).collect()
}

/// Where typing began, guessed from what changed: the changed place from which most of `typed` can be read.
pub(super) fn guess_start(before: &ScreenText, now: &ScreenText, typed: &[char]) -> Option<Place> {
    let blanks = typed.iter().take_while(|character| **character == ' ').count();
    let visible = typed.get(blanks..).filter(|rest| !rest.is_empty())?;
    let first = visible.first()?;
    let mut best: Option<(usize, Place)> = None;
    for row in 0..now.rows.len() {
        for column in blanks..now.cols {
            let place = (row, column);
            if at(now, place) != Some(*first) || at(before, place) == Some(*first) {
                continue;
            }
            let length = read(now, place, visible).length;
            if best.is_none_or(|(most, _)| length >= most) {
                best = Some((length, (row, column - blanks)));
            }
        }
    }
    best.map(|(_, place)| place)
}

/// By how many lines the screen has scrolled up since `before`, judged by the lines above the typing place.
pub(super) fn scrolled(before: &ScreenText, now: &ScreenText, start: Place) -> usize {
    let unmoved = |by: usize| {
        (by..start.0).all(|row| before.rows.get(row) == now.rows.get(row - by))
            && (0..start.1).all(|column| at(before, (start.0, column)) == at(now, (start.0 - by, column)))
    };
    (0..=start.0).find(|by| unmoved(*by)).unwrap_or(0)
}

#[cfg(test)]
#[path = "readback_tests.rs"]
mod tests;
