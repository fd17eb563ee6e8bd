//! A scripted RFB server with a simple guest behind it: an 80x25 screen that echoes keys, and can be told to fail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::console::{Console, lock};
use crate::keymap::{self, BACKSPACE, ENTER};
use crate::recording::replay::open;
use crate::screen::tests::draw;

/// QEMU's pseudo-encoding of the keyboard's lights.
const LED_STATE: i32 = -261;

/// What the guest does with keys, and how it looks.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// The lines; the cursor is behind the last one's last character.
    pub(crate) lines: Vec<String>,
    /// Whether keys are shown.
    pub(crate) echoes: bool,
    /// Whether the text cursor is drawn.
    pub(crate) shows_cursor: bool,
    /// The number of a key (from 0, Backspace not counted) and what the guest takes it for; `None` drops it.
    pub(crate) faults: HashMap<usize, Option<char>>,
    /// What its keyboard's layout makes of a key.
    pub(crate) layout: Option<fn(char) -> Option<char>>,
    /// How long the guest takes for a key.
    pub(crate) slowness: Duration,
    /// A picture instead of text.
    pub(crate) graphics: bool,
    /// Keys taken, as characters; Backspace is `\u{8}`.
    pub(crate) keys: String,
    /// Keysyms that are down.
    pub(crate) down: Vec<u32>,
    /// What the guest still draws, on a new line, before it takes the first key.
    pub(crate) late_line: Option<String>,
    /// What the guest still draws over its last line before it takes the first key.
    pub(crate) redrawn_line: Option<String>,
    /// How many keys were taken, Backspace not counted.
    pub(crate) taken: usize,
    /// Whether the light of caps lock is on.
    pub(crate) caps: bool,
    /// How often the display is looked at.
    pub(crate) refresh: Duration,
    /// Releases since the last press.
    pub(crate) releases: usize,
    /// The most releases that came in a row.
    pub(crate) most_releases: usize,
}

impl Guest {
    pub(crate) fn with_prompt(prompt: &str) -> Self {
        Self {
            lines: vec!["SeaBIOS (version 1.16.3)".to_owned(), String::new(), prompt.to_owned()],
            echoes: true,
            shows_cursor: true,
            faults: HashMap::new(),
            layout: None,
            slowness: Duration::ZERO,
            graphics: false,
            keys: String::new(),
            down: Vec::new(),
            late_line: None,
            redrawn_line: None,
            taken: 0,
            caps: false,
            refresh: Duration::from_millis(5),
            releases: 0,
            most_releases: 0,
        }
    }

    fn key(&mut self, down: bool, keysym: u32) {
        self.releases = if down { 0 } else { self.releases + 1 };
        self.most_releases = self.most_releases.max(self.releases);
        let place = |keysym: u32| {
            char::from_u32(keysym).and_then(keymap::us).map_or((keysym, 0), |stroke| (0, stroke.scancode))
        };
        self.down.retain(|other| place(*other) != place(keysym));
        if down {
            self.down.push(keysym);
        }
        if !down || keysym >= 0xff00 && keysym != BACKSPACE.keysym && keysym != ENTER.keysym {
            return;
        }
        self.lines.extend(self.late_line.take());
        if let (Some(line), Some(redrawn)) = (self.lines.last_mut(), self.redrawn_line.take()) {
            *line = redrawn;
        }
        if keysym == BACKSPACE.keysym {
            self.keys.push('\u{8}');
            if let Some(line) = self.lines.last_mut() {
                line.pop();
                if line.is_empty() && self.lines.len() > 3 {
                    self.lines.pop();
                }
            }
            return;
        }
        let character = if keysym == ENTER.keysym { '\n' } else { char::from_u32(keysym).unwrap_or('?') };
        self.keys.push(character);
        let number = self.taken;
        self.taken += 1;
        if !self.echoes {
            return;
        }
        let usual = self.layout.map_or(Some(character), |layout| layout(character));
        match self.faults.get(&number).copied().unwrap_or(usual) {
            None => {}
            Some('\n') => self.lines.push(String::new()),
            Some(shown) => {
                if self.lines.last().is_none_or(|line| line.chars().count() >= 80) {
                    self.lines.push(String::new());
                }
                if let Some(line) = self.lines.last_mut() {
                    line.push(shown);
                }
            }
        }
        if self.lines.len() > 25 {
            self.lines.remove(0);
        }
    }

    /// What one line of the screen looks like: its text, and the cursor's column.
    fn look(&self, line: usize) -> Look {
        let last = self.lines.len().saturating_sub(1);
        let text = self.lines.get(line).cloned().unwrap_or_default();
        let cursor = (line == last && self.shows_cursor).then(|| text.chars().count().min(79));
        (text, cursor, self.graphics)
    }
}

type Look = (String, Option<usize>, bool);

/// The pixels of one line, as the wire wants them.
fn pixels((text, cursor, graphics): &Look) -> Vec<u8> {
    let frame = draw(&[text], cursor.map(|column| (0, column)));
    let mut bytes = Vec::with_capacity(720 * 16 * 4);
    for y in 0..16 {
        for (x, pixel) in frame.row(0, y, 720).iter().enumerate() {
            let noise = if *graphics { (x as u32 * 7919) ^ (y * 31) } else { 0 };
            bytes.extend_from_slice(&(pixel ^ noise).to_le_bytes());
        }
    }
    bytes
}

/// The guest as the test sees it while the server runs.
pub(crate) type Shared = Arc<Mutex<Guest>>;

/// Opens a console on a guest.
pub(crate) async fn console(guest: Guest) -> (Console, Shared) {
    let (ours, theirs) = duplex(64 * 1024);
    let shared = Arc::new(Mutex::new(guest));
    tokio::spawn(serve(theirs, Arc::clone(&shared)));
    (Console::open(ours, None).await.unwrap(), shared)
}

/// Serves RFB 3.8 until the client goes or the guest's lines are empty (the VM stopped).
pub(crate) async fn serve(mut stream: DuplexStream, guest: Shared) -> std::io::Result<()> {
    open(&mut stream, *b"\x02\xd0\x01\x90", "test").await?;
    let (mut asked, mut whole) = (false, false);
    let mut shown: Vec<Option<Look>> = vec![None; 25];
    let mut light = false;
    loop {
        let mut kind = [0];
        let refresh = lock(&guest).refresh;
        tokio::select! {
            read = stream.read_exact(&mut kind) => { read?; }
            () = tokio::time::sleep(refresh), if asked => kind = [0xfe],
        }
        match kind[0] {
            0 => {
                stream.read_exact(&mut [0; 19]).await?;
            }
            2 => {
                let mut head = [0; 3];
                stream.read_exact(&mut head).await?;
                stream.read_exact(&mut vec![0; usize::from(head[2]) * 4]).await?;
            }
            3 => {
                let mut request = [0; 9];
                stream.read_exact(&mut request).await?;
                asked = true;
                // What is not incremental is answered with pixels, changed or not.
                whole |= request[0] == 0;
            }
            4 => {
                let mut event = [0; 7];
                stream.read_exact(&mut event).await?;
                let keysym = u32::from_be_bytes([event[3], event[4], event[5], event[6]]);
                let slowness = lock(&guest).slowness;
                tokio::time::sleep(slowness).await;
                lock(&guest).key(event[0] == 1, keysym);
            }
            _ => {}
        }
        let now = lock(&guest).clone();
        if now.lines.is_empty() {
            return Ok(());
        }
        let mut changed: Vec<usize> =
            (0..25).filter(|line| shown.get(*line) != Some(&Some(now.look(*line)))).collect();
        if whole && changed.is_empty() && kind[0] == 0xfe {
            changed.push(0);
        }
        let switched = now.caps != light;
        if asked && (switched || !changed.is_empty()) {
            (asked, whole) = (false, false);
            stream.write_all(&[0, 0, 0, changed.len() as u8 + u8::from(switched)]).await?;
            if switched {
                light = now.caps;
                stream.write_all(&[0; 8]).await?;
                stream.write_all(&LED_STATE.to_be_bytes()).await?;
                stream.write_all(&[u8::from(light) << 2]).await?;
            }
            for line in changed {
                let [high, low] = (line as u16 * 16).to_be_bytes();
                stream.write_all(&[0, 0, high, low, 0x02, 0xd0, 0, 16, 0, 0, 0, 0]).await?;
                stream.write_all(&pixels(&now.look(line))).await?;
                shown[line] = Some(now.look(line));
            }
        }
    }
}

/// The characters a text needs as keys, for comparing with [`Guest::keys`].
pub(crate) fn is_typable(text: &str) -> bool {
    text.chars().all(|character| keymap::us(character).is_some())
}
