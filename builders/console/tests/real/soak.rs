//! Random kernel lines typed into GRUB's editor: a few in every run of the tests, 1,000 on a busy machine by
//! `cargo lab soak typing`, beside the fixed interval without read-back that other builders type with.

#![expect(clippy::print_stdout, reason = "a soak prints what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use forge_console::keymap::Layout;
use forge_console::{Console, KeySink, PlayOptions, TypeOptions, play, type_text};

use super::{GRUB, GRUB_MENU, PATIENCE, grub, parse, vm};

/// What one line has, as most of the kernel lines that people type.
const LENGTH: usize = 200;
/// The pause of the builders that read nothing back, after each press and after each release of a key.
const FIXED_INTERVAL: Duration = Duration::from_millis(100);

/// Reproducible random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % limit
    }

    /// A kernel line: arguments as people write them, with addresses, paths and random words.
    fn line(&mut self) -> String {
        const WORDS: [&str; 14] = [
            "inst.ks=",
            "auto",
            "ds=nocloud;s=",
            "http://",
            "console=ttyS0,115200n8",
            "ip=dhcp",
            "quiet",
            "---",
            "url=",
            "net.ifnames=0",
            "priority=critical",
            "locale=en_US.UTF-8",
            "hostname=",
            "rd.luks=no",
        ];
        const LETTERS: &[u8] =
            b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-._~/:;=%&+,@#!?*()[]{}<>|'\"$^`";
        let mut line = String::new();
        while line.len() < LENGTH {
            line.push(' ');
            line.push_str(WORDS.get(self.below(WORDS.len())).unwrap_or(&""));
            for _ in 0..self.below(12) {
                line.push(LETTERS.get(self.below(LETTERS.len())).map_or('x', |byte| char::from(*byte)));
            }
        }
        line.truncate(LENGTH - 1);
        line.push('.');
        line
    }
}

/// Opens the editor on a fresh copy of the entry, with the cursor at the end of the kernel's line.
async fn open_editor(console: &Console) -> Result<()> {
    let keys = "<waitFor \"Debian GNU/Linux\" 5m><waitStill 300ms>e<waitFor \"vmlinuz\" 5m><waitStill 300ms><down><down><end>";
    play(console, console, &parse(keys)?, &PlayOptions::default()).await?;
    console.wait_still(Duration::from_millis(400), PATIENCE).await?;
    Ok(())
}

/// What stands in the editor behind the entry's own kernel line; read on its own, without the typist's read-back.
fn typed(console: &Console) -> Result<String> {
    let screen = console.screen();
    let text = screen.text().context("text mode")?;
    let inside = |row: &String| {
        let (_, row) = row.split_once('│')?;
        Some(row.rsplit_once('│')?.0.trim_end_matches(' ').to_owned())
    };
    let rows: Vec<String> = text.rows.iter().filter_map(inside).collect();
    let first = rows.iter().position(|row| row.contains("linux /boot")).context("the kernel's line")?;
    let mut joined = String::new();
    for row in rows.iter().skip(first) {
        joined.push_str(row.strip_suffix('\\').unwrap_or(row));
        if !row.ends_with('\\') {
            break;
        }
    }
    let (_, typed) = joined.split_once("console=tty0 quiet").context("the entry's own arguments")?;
    Ok(typed.to_owned())
}

/// Characters that differ, and those that are too many or too few.
fn errors(wanted: &str, got: &str) -> usize {
    let (wanted, got): (Vec<char>, Vec<char>) = (wanted.chars().collect(), got.chars().collect());
    let mut row: Vec<usize> = (0..=got.len()).collect();
    for (i, a) in wanted.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in got.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

async fn proven(console: &Console, lines: usize, random: &mut Random) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 1..=lines {
        let line = random.line();
        open_editor(console).await?;
        let report =
            type_text(console, &line, &TypeOptions::default()).await.with_context(|| line.clone())?;
        ensure!(report.verified, "line {number} was not read back: {line}");
        console.wait_still(Duration::from_millis(300), PATIENCE).await?;
        let seen = typed(console)?;
        ensure!(
            seen == line,
            "line {number}:\n{line:?} was typed, and\n{seen:?} stands there\n{}",
            console.screen()
        );
        println!("line {number}: {:.2} s, {} corrections", report.elapsed.as_secs_f64(), report.corrections);
        times.push(report.elapsed);
        play(console, console, &parse("<esc>")?, &PlayOptions::default()).await?;
    }
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_kernel_lines_arrive_exactly_in_grubs_editor() -> Result<()> {
    if vm::missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    proven(&console, 4, &mut Random(0x5eed)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour: cargo lab soak typing"]
async fn soak_typing() -> Result<()> {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (lines, fixed) = (number("FORGE_SOAK_LINES", 1000), number("FORGE_SOAK_FIXED_LINES", 10));
    let stop = Arc::new(AtomicBool::new(false));
    let cores =
        if number("FORGE_SOAK_IDLE", 0) > 0 { 0 } else { std::thread::available_parallelism()?.get() };
    for _ in 0..cores {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
    }
    let (_vm, console) = grub(GRUB_MENU).await?;
    let mut random = Random(0x5eed);
    let mut times = proven(&console, lines, &mut random).await?;
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let seconds = |share| at(share).map_or(0.0, Duration::as_secs_f64);
    println!(
        "proven: {lines} lines of {LENGTH}, {cores} busy threads: median {:.2} s, p90 {:.2} s, slowest {:.2} s, 0 errors",
        seconds(50),
        seconds(90),
        seconds(100)
    );
    let (mut wrong, mut took) = (0, Duration::ZERO);
    for _ in 0..fixed {
        let line = random.line();
        open_editor(&console).await?;
        let began = Instant::now();
        for character in line.chars() {
            let strokes = Layout::Us.strokes(character).context("a key")?;
            console.press(&strokes).await?;
            let events = if strokes.iter().any(|stroke| stroke.shift) { 4 } else { 2 };
            tokio::time::sleep(FIXED_INTERVAL * events).await;
        }
        took += began.elapsed();
        console.wait_still(Duration::from_secs(1), PATIENCE).await?;
        wrong += errors(&line, &typed(&console)?);
        play(&console, &console, &parse("<esc>")?, &PlayOptions::default()).await?;
    }
    stop.store(true, Ordering::Relaxed);
    if fixed > 0 {
        println!(
            "fixed interval: {fixed} lines, {:.1} s each, {wrong} wrong characters",
            took.as_secs_f64() / fixed as f64
        );
    }
    Ok(())
}
