//! Random kernel lines for GRUB's editor, and what stands there when they are typed. The same for every transport.

#![expect(clippy::print_stdout, reason = "a soak prints what it measured")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forge_console::keymap::Layout;
use forge_console::screen::ScreenText;
use forge_console::{BootAction, Console, KeySink, PlayOptions, TypeOptions, boot_command, play, type_text};

/// TCG on a loaded machine is slow; a test that passes never waits that long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The menu that the lines are typed into.
pub const GRUB_MENU: &str = r#"
set timeout=-1
menuentry "Debian GNU/Linux" {
    linux /boot/vmlinuz-6.1.0-37-cloud-amd64 root=UUID=7c0d9a5e-5c0a-4b5e-9a43-6b4f5a3f2d11 ro console=tty0 quiet
    initrd /boot/initrd.img-6.1.0-37-cloud-amd64
}
menuentry "Second entry" { true }
"#;

/// A menu for many lines: under emulation GRUB takes longer for each key the longer the kernel's line is.
pub const SHORT_MENU: &str = r#"
set timeout=-1
menuentry "Debian GNU/Linux" {
    linux /boot/vmlinuz root=/dev/sda1 console=tty0 quiet
    initrd /boot/initrd.img
}
"#;

/// Which of GRUB's terminals a soak is typed at: `vga_text`, its own driver for text, or `console`, the BIOS's calls, for each of
/// which an emulated machine takes 20 ms and more. From `FORGE_SOAK_TERMINAL`.
pub fn soak_menu() -> String {
    let terminal = std::env::var("FORGE_SOAK_TERMINAL").unwrap_or_else(|_| "vga_text".to_owned());
    format!("terminal_output {terminal}\n{GRUB_MENU}")
}

/// A boot command.
pub fn parse(command: &str) -> Result<Vec<BootAction>> {
    boot_command::parse(command).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

/// What one line of a soak has, as most of the kernel lines that people type.
pub const LENGTH: usize = 200;
/// Reproducible random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % limit
    }

    /// A kernel line: arguments as people write them, with addresses, paths and random words.
    pub fn line(&mut self, length: usize) -> String {
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
        while line.len() < length {
            line.push(' ');
            line.push_str(WORDS.get(self.below(WORDS.len())).unwrap_or(&""));
            for _ in 0..self.below(12) {
                line.push(LETTERS.get(self.below(LETTERS.len())).map_or('x', |byte| char::from(*byte)));
            }
        }
        line.truncate(length - 1);
        line.push('.');
        line
    }
}

/// Opens the editor on a fresh copy of the entry, with the cursor at the end of the kernel's line. Each text that is waited for
/// stands on one of the two screens only: on a busy machine GRUB takes a key seconds later.
pub async fn open_editor(console: &Console) -> Result<()> {
    let keys = "<waitFor \"Press enter to boot\" 5m>e<waitFor \"Press Ctrl-x\" 5m><down><down><end>";
    play(console, console, &parse(keys)?, &PlayOptions::default()).await?;
    let there = async {
        while !console.screen().text().is_some_and(at_the_end) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, there).await;
    waited.with_context(|| format!("the cursor is not at the end of the kernel's line\n{}", console.screen()))
}

/// Whether the cursor stands behind the entry's own arguments.
fn at_the_end(text: &ScreenText) -> bool {
    const LAST: &str = "console=tty0 quiet";
    let behind = |row: usize| {
        let (before, _) = text.rows.get(row)?.split_once(LAST)?;
        Some(before.chars().count() + LAST.len())
    };
    text.cursor.is_some_and(|(row, column)| behind(row) == Some(column))
}

/// What stands in the editor behind the entry's own kernel line; read on its own, without the typist's read-back.
pub fn typed(console: &Console) -> Result<String> {
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
pub fn errors(wanted: &str, got: &str) -> usize {
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

/// The lines that were typed with proof: how long each took.
#[derive(Default)]
struct Proven {
    times: Vec<Duration>,
    corrections: u32,
}

impl Proven {
    /// Types a line and compares it with what stands in the editor then, read on its own.
    async fn add(&mut self, console: &Console, line: &str) -> Result<()> {
        open_editor(console).await?;
        let report =
            type_text(console, line, &TypeOptions::default()).await.with_context(|| line.to_owned())?;
        ensure!(report.verified, "it was not read back: {line}");
        console.wait_still(Duration::from_millis(300), PATIENCE).await?;
        let seen = typed(console)?;
        ensure!(seen == line, "{line:?} was typed, and\n{seen:?} stands there\n{}", console.screen());
        self.times.push(report.elapsed);
        self.corrections += report.corrections;
        let (number, seconds) = (self.times.len(), report.elapsed.as_secs_f64());
        println!("line {number}: {seconds:.2} s, {} corrections", report.corrections);
        play(console, console, &parse("<esc>")?, &PlayOptions::default()).await?;
        Ok(())
    }
}

impl std::fmt::Display for Proven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.times.clone();
        times.sort();
        let last = times.len().saturating_sub(1);
        let at = |share: usize| times.get((times.len() * share / 100).min(last));
        let seconds = |share| at(share).map_or(0.0, Duration::as_secs_f64);
        write!(
            f,
            "{} lines, all exact: median {:.2} s, p90 {:.2} s, slowest {:.2} s, {} corrections",
            times.len(),
            seconds(50),
            seconds(90),
            seconds(100),
            self.corrections
        )
    }
}

/// Types lines with proof and compares each with what stands in the editor then.
pub async fn proven(console: &Console, (lines, length): (usize, usize), random: &mut Random) -> Result<()> {
    let mut done = Proven::default();
    for number in 1..=lines {
        done.add(console, &random.line(length)).await.with_context(|| format!("line {number}"))?;
    }
    println!("{done}");
    Ok(())
}

/// The pause of the builders that read nothing back, after each press and after each release of a key.
const FIXED_INTERVAL: Duration = Duration::from_millis(100);

/// How many lines apart a soak says how far it is.
const TOLD: usize = 50;

/// Types lines with proof, prints the times every 50 lines and at the end, then lines with a fixed interval and unseen, and
/// prints their errors. The numbers come from `FORGE_SOAK_LINES` and `FORGE_SOAK_FIXED_LINES`; `FORGE_SOAK_MINUTES`, where it
/// is set, ends the lines with proof.
pub async fn measure(console: &Console, name: &str) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let lines = number("FORGE_SOAK_LINES").unwrap_or(1000);
    let fixed = number("FORGE_SOAK_FIXED_LINES").unwrap_or(10);
    let limit = number("FORGE_SOAK_MINUTES").map(|minutes| Duration::from_secs(minutes as u64 * 60));
    let began = std::time::Instant::now();
    let mut random = Random(0x5eed);
    let mut done = Proven::default();
    for number in 1..=lines {
        if let Err(error) = done.add(console, &random.line(LENGTH)).await {
            println!("proven, {name}, lines of {LENGTH}: {done}; line {number} failed");
            return Err(error.context(format!("line {number}")));
        }
        if number % TOLD == 0 && number < lines {
            println!("proven, {name}, lines of {LENGTH}, so far: {done}");
        }
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
    }
    println!("proven, {name}, lines of {LENGTH}: {done}");
    let (mut wrong, mut took) = (0, Duration::ZERO);
    for _ in 0..fixed {
        let line = random.line(LENGTH);
        open_editor(console).await?;
        let began = std::time::Instant::now();
        for character in line.chars() {
            let strokes = Layout::Us.strokes(character).context("a key")?;
            console.press(&strokes).await?;
            let events = if strokes.iter().any(|stroke| stroke.shift) { 4 } else { 2 };
            tokio::time::sleep(FIXED_INTERVAL * events).await;
        }
        took += began.elapsed();
        let _ = console.wait_still(Duration::from_secs(1), PATIENCE).await;
        // Where the entry's own words were damaged too, nothing of the line is right.
        wrong += errors(&line, &typed(console).unwrap_or_default());
        play(console, console, &parse("<esc>")?, &PlayOptions::default()).await?;
    }
    if fixed > 0 {
        println!(
            "fixed interval, {name}: {fixed} lines, {:.1} s each, {wrong} wrong characters",
            took.as_secs_f64() / fixed as f64
        );
    }
    Ok(())
}

/// Keeps every core busy until it is dropped, unless `FORGE_SOAK_IDLE` is 1.
pub struct Busy(Arc<AtomicBool>);

impl Busy {
    /// Begins.
    pub fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let idle = std::env::var("FORGE_SOAK_IDLE").is_ok_and(|idle| idle == "1");
        let cores = if idle { 0 } else { std::thread::available_parallelism()?.get() };
        for _ in 0..cores {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        println!("{cores} threads keep the machine busy");
        Ok(Self(stop))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
