//! What stands on a screen for sure, and the comparison of the grid with it.

use anyhow::{Context as _, Result, ensure};
use forge_console::{Console, ScreenText};

use super::machine::Machine;
use super::{PATIENCE, STILL};

/// Code page 437 as the VGA shows it; blanks for what is blank.
const CODE_PAGE_437: &str = concat!(
    " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼",
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂",
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»",
    "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ",
);
/// The colours of VGA's text modes.
const COLOURS: [u32; 16] = [
    0x00_0000, 0x00_00aa, 0x00_aa00, 0x00_aaaa, 0xaa_0000, 0xaa_00aa, 0xaa_5500, 0xaa_aaaa, 0x55_5555,
    0x55_55ff, 0x55_ff55, 0x55_ffff, 0xff_5555, 0xff_55ff, 0xff_ff55, 0xff_ffff,
];

/// How the reading of one screen went.
#[derive(Debug, Default)]
pub struct Score {
    /// Cells that are not blank.
    cells: usize,
    /// Of them read right.
    right: usize,
    /// Of them said to be unreadable.
    unread: usize,
    /// Cells read as something else: must be none.
    wrong: Vec<String>,
}

impl Score {
    /// Prints the line of the table and fails when a character is wrong or too many are unread.
    pub fn settle(&self, name: &str, console: &Console) -> Result<()> {
        let (width, height) = console.size();
        let screen = console.screen();
        let font = screen.text().map_or("", ScreenText::font).to_owned();
        println!(
            "| {name} | {width}x{height} | {font} | {} | {} | {} |",
            self.cells,
            self.unread,
            self.wrong.len()
        );
        ensure!(
            self.wrong.is_empty(),
            "{name}: read wrong: {:?}\n{screen}",
            self.wrong.iter().take(5).collect::<Vec<_>>()
        );
        ensure!(self.cells > 0, "{name}: nothing to compare\n{screen}");
        let share = self.right as f64 / self.cells as f64;
        ensure!(share >= 0.999, "{name}: only {share:.4} of {} cells were read\n{screen}", self.cells);
        // Those that are blank are unread where something is taken for a picture's part.
        ensure!(self.unread * 1000 <= self.cells, "{name}: {} cells are unread\n{screen}", self.unread);
        Ok(())
    }

    fn count(&mut self, read: char, truth: char, place: (usize, usize)) {
        let truth = alike(truth);
        self.cells += usize::from(truth != ' ');
        if alike(read) == truth {
            self.right += usize::from(truth != ' ');
        } else if read == char::REPLACEMENT_CHARACTER {
            self.unread += 1;
        } else {
            self.wrong.push(format!("{place:?}: {read:?} for {truth:?}"));
        }
    }
}

/// A full block looks like a blank in the other colour.
fn alike(character: char) -> char {
    if character == '█' || character == '\u{a0}' { ' ' } else { character }
}

/// Waits for a text and for stillness, then compares every cell with VGA's text memory.
pub async fn text_memory(
    machine: &Machine,
    name: &str,
    text: &str,
    columns: usize,
    lines: usize,
) -> Result<()> {
    machine.console.wait_for(text, PATIENCE).await?;
    // What moves on for ever (a memory test) is stopped by reading twice.
    let _ = machine.console.wait_still(STILL, STILL * 10).await;
    let mut last = None;
    for _ in 0..20 {
        let memory = machine.text_memory(columns, lines)?;
        machine.keep(name)?;
        let screen = machine.console.screen();
        let grid = screen.text().with_context(|| format!("{name}: no text: {screen}"))?;
        ensure!(
            grid.cols == columns && grid.rows.len() == lines,
            "{name}: {}x{} cells\n{screen}",
            grid.cols,
            grid.rows.len()
        );
        let score = compare_memory(grid, &memory);
        if score.wrong.is_empty() && score.unread == 0 {
            return score.settle(name, &machine.console);
        }
        last = Some(score);
        tokio::time::sleep(STILL).await;
    }
    last.context("no look at all")?.settle(name, &machine.console)
}

fn compare_memory(grid: &ScreenText, memory: &[[u8; 2]]) -> Score {
    let table: Vec<char> = CODE_PAGE_437.chars().collect();
    let mut score = Score::default();
    for (index, [code, attribute]) in memory.iter().enumerate() {
        let place = (index / grid.cols, index % grid.cols);
        let truth = table[usize::from(*code)];
        let Some(cell) = grid.cell(place.0, place.1) else {
            score.count(char::REPLACEMENT_CHARACTER, truth, place);
            continue;
        };
        let (ink, paper) = (COLOURS[usize::from(attribute & 15)], COLOURS[usize::from(attribute >> 4 & 7)]);
        // What has the colour of its background can't be seen.
        score.count(cell.character, if ink == paper { ' ' } else { truth }, place);
        let letter = truth.is_ascii_alphanumeric() && cell.character == truth;
        // The VGA has six bits for each of red, green and blue.
        let six = |colour: u32| colour & 0xfc_fcfc;
        if letter && (six(cell.foreground), six(cell.background)) != (six(ink), six(paper)) {
            score.wrong.push(format!("{place:?}: colours {cell:?} for {ink:06x} on {paper:06x}"));
        }
    }
    score
}

/// Waits until the display has this size.
pub async fn size(machine: &Machine, size: (u32, u32)) -> Result<()> {
    let began = std::time::Instant::now();
    while machine.console.size() != size {
        ensure!(began.elapsed() < PATIENCE, "the display has {:?}, not {size:?}", machine.console.size());
        tokio::time::sleep(STILL / 4).await;
    }
    Ok(())
}

/// What may stand beside the lines that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// A picture, or what the test does not know.
    Anything,
    /// A frame, and GRUB's star before the chosen entry; other lines are not looked at.
    Frame,
    /// Nothing on the whole screen.
    Nothing,
}

/// Compares lines that stand somewhere on the screen, one below the other from the first one's place on, and that what
/// stands beside them is what may.
pub async fn lines(machine: &Machine, name: &str, expected: &[&str], beside: Beside) -> Result<()> {
    let first = expected.iter().find(|line| !line.trim().is_empty()).context("a line that is not blank")?;
    let last = expected.iter().rfind(|line| !line.trim().is_empty()).context("a line that is not blank")?;
    for text in [first, last] {
        if let Err(error) = machine.console.wait_for(text, PATIENCE).await {
            machine.keep(name)?;
            return Err(error.into());
        }
    }
    let _ = machine.console.wait_still(STILL, STILL * 10).await;
    machine.keep(name)?;
    let screen = machine.console.screen();
    let grid = screen.text().with_context(|| format!("{name}: no text: {screen}"))?;
    let at = grid.rows.iter().position(|row| row.contains(first.trim())).context("the first line")?;
    let row: Vec<char> = grid.rows[at].chars().collect();
    let words: Vec<char> = first.trim().chars().collect();
    let left = row.windows(words.len()).position(|window| window == words).context("its place")?;
    let indent = first.len() - first.trim_start().len();
    ensure!(left >= indent, "{name}: the first line stands too far left\n{screen}");
    let skip = expected.iter().position(|line| line == first).unwrap_or(0);
    let mut score = Score::default();
    for (offset, line) in expected[skip..].iter().enumerate() {
        for (column, truth) in line.chars().enumerate() {
            let place = (at + offset, left - indent + column);
            let read = grid.cell(place.0, place.1).map_or(char::REPLACEMENT_CHARACTER, |cell| cell.character);
            score.count(read, truth, place);
        }
    }
    let compared = &expected[skip..];
    for (row, column) in (0..grid.rows.len()).flat_map(|row| (0..grid.cols).map(move |column| (row, column)))
    {
        let line = row.checked_sub(at).and_then(|row| compared.get(row));
        let within =
            line.is_some_and(|line| (left - indent..left - indent + line.chars().count()).contains(&column));
        let read = grid.cell(row, column).map_or(' ', |cell| cell.character);
        let counts = match beside {
            Beside::Anything => false,
            Beside::Frame => line.is_some() && read != '*' && !('─'..='▟').contains(&read),
            Beside::Nothing => true,
        };
        if counts && !within {
            score.count(read, ' ', (row, column));
        }
    }
    score.settle(name, &machine.console)
}
