//! The steps of the state machine: each takes one whole piece of input, or says that more is needed.

use super::wire::{SET_PIXEL_FORMAT, encoding, set_encodings};
use super::{Event, Leds, RfbClient, RfbError, State, auth};
use crate::frame::{Frame, Rect};

/// The longest reason text or display name, in bytes.
const MAX_TEXT: u32 = 64 * 1024;
/// The longest clipboard that is skipped, in bytes.
const MAX_CUT_TEXT: u32 = 64 * 1024 * 1024;

impl RfbClient {
    /// Takes one step; `false` when the input does not hold the next piece yet.
    pub(super) fn step(&mut self) -> Result<bool, RfbError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Version => self.version(),
            State::SecurityWord => self.security_word(),
            State::SecurityList => self.security_list(),
            State::Challenge => self.challenge(),
            State::SecurityResult => self.security_result(),
            State::Reason { result } => self.reason(result),
            State::Init => self.init(),
            State::Message => self.message(),
            State::RectHeader { left } => self.rect_header(left),
            State::RawRows { left, rect, row } => self.raw_rows(left, rect, row),
            State::Skip { bytes, then } => Ok(self.skip(bytes, *then)),
            State::Failed => Err(RfbError::Failed),
        }
    }

    /// The next `length` bytes, if they are there; consumes them.
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.taken.checked_add(length)?;
        let bytes = self.input.get(self.taken..end)?;
        self.taken = end;
        Some(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Looks at bytes ahead without consuming them.
    fn peek<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.taken.checked_add(offset)?;
        self.input.get(start..start.checked_add(N)?)?.try_into().ok()
    }

    fn goto(&mut self, state: State) -> bool {
        self.state = state;
        true
    }

    fn wait_in(&mut self, state: State) -> bool {
        self.state = state;
        false
    }

    fn version(&mut self) -> Result<bool, RfbError> {
        let Some(bytes) = self.take_array::<12>() else {
            // A peer that is no RFB server may send less than twelve bytes and wait: the first four tell.
            let seen = self.input.get(..self.input.len().min(4)).unwrap_or(&[]);
            if !b"RFB ".starts_with(seen) {
                return Err(RfbError::NotRfb(String::from_utf8_lossy(seen).into_owned()));
            }
            return Ok(self.wait_in(State::Version));
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let numbers = text.strip_prefix("RFB ").and_then(|rest| rest.strip_suffix('\n')).and_then(|rest| {
            let (major, minor) = rest.split_once('.')?;
            Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?))
        });
        let Some(version) = numbers.filter(|(major, _)| *major >= 3) else {
            return Err(RfbError::NotRfb(text));
        };
        // Anything odd below 3.7 is 3.3, anything above 3.8 (Apple's 3.889, RealVNC's 4) is 3.8: RFC 6143 §7.1.1.
        self.minor = match version {
            (3, ..=6) => 3,
            (3, 7) => 7,
            _ => 8,
        };
        self.output.extend_from_slice(format!("RFB 003.00{}\n", self.minor).as_bytes());
        Ok(self.goto(if self.minor == 3 { State::SecurityWord } else { State::SecurityList }))
    }

    fn security_word(&mut self) -> Result<bool, RfbError> {
        let Some(bytes) = self.take_array::<4>() else { return Ok(self.wait_in(State::SecurityWord)) };
        match u32::from_be_bytes(bytes) {
            0 => Ok(self.goto(State::Reason { result: false })),
            1 => Ok(self.client_init()),
            2 => Ok(self.goto(State::Challenge)),
            other => Err(RfbError::Security { offered: vec![other.min(255) as u8] }),
        }
    }

    fn security_list(&mut self) -> Result<bool, RfbError> {
        let Some([count]) = self.peek::<1>(0) else { return Ok(self.wait_in(State::SecurityList)) };
        if count == 0 {
            self.taken += 1;
            return Ok(self.goto(State::Reason { result: false }));
        }
        let Some(list) = self.take(1 + usize::from(count)) else {
            return Ok(self.wait_in(State::SecurityList));
        };
        let offered = list.get(1..).unwrap_or(&[]).to_vec();
        let (none, vnc) = (offered.contains(&1), offered.contains(&2));
        if vnc && (self.password.is_some() || !none) {
            self.output.push(2);
            return Ok(self.goto(State::Challenge));
        }
        if !none {
            return Err(RfbError::Security { offered });
        }
        self.output.push(1);
        if self.minor >= 8 {
            return Ok(self.goto(State::SecurityResult));
        }
        Ok(self.client_init())
    }

    fn challenge(&mut self) -> Result<bool, RfbError> {
        if self.password.is_none() {
            return Err(RfbError::PasswordNeeded);
        }
        let Some(challenge) = self.take_array::<16>() else { return Ok(self.wait_in(State::Challenge)) };
        let answer = auth::respond(self.password.as_deref().unwrap_or_default(), challenge);
        self.output.extend_from_slice(&answer);
        Ok(self.goto(State::SecurityResult))
    }

    fn security_result(&mut self) -> Result<bool, RfbError> {
        let Some(bytes) = self.take_array::<4>() else { return Ok(self.wait_in(State::SecurityResult)) };
        match u32::from_be_bytes(bytes) {
            0 => Ok(self.client_init()),
            _ if self.minor >= 8 => Ok(self.goto(State::Reason { result: true })),
            code => Err(RfbError::Refused { reason: format!("security result {code}") }),
        }
    }

    fn reason(&mut self, result: bool) -> Result<bool, RfbError> {
        let Some(length) = self.peek::<4>(0).map(u32::from_be_bytes) else {
            return Ok(self.wait_in(State::Reason { result }));
        };
        if length > MAX_TEXT {
            return Err(RfbError::Length { what: "a reason", length: length.into() });
        }
        let Some(bytes) = self.take(4 + length as usize) else {
            return Ok(self.wait_in(State::Reason { result }));
        };
        // QEMU ends its reason with a NUL.
        let reason = String::from_utf8_lossy(bytes.get(4..).unwrap_or(&[]));
        let reason = reason.split(char::is_control).collect::<Vec<_>>().join(" ").trim().to_owned();
        Err(RfbError::Refused { reason })
    }

    /// Asks for a shared session: somebody may be looking on.
    fn client_init(&mut self) -> bool {
        self.output.push(1);
        self.goto(State::Init)
    }

    fn init(&mut self) -> Result<bool, RfbError> {
        let (Some([w1, w0, h1, h0]), Some(length)) = (self.peek::<4>(0), self.peek::<4>(20)) else {
            return Ok(self.wait_in(State::Init));
        };
        let length = u32::from_be_bytes(length);
        if length > MAX_TEXT {
            return Err(RfbError::Length { what: "a name", length: length.into() });
        }
        let Some(bytes) = self.take(24 + length as usize) else { return Ok(self.wait_in(State::Init)) };
        let name = String::from_utf8_lossy(bytes.get(24..).unwrap_or(&[])).into_owned();
        self.frame = Frame::new(u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into())?;
        self.output.extend_from_slice(&SET_PIXEL_FORMAT);
        self.output.extend_from_slice(&set_encodings());
        self.request_update(false);
        self.events.push(Event::Ready { name });
        Ok(self.goto(State::Message))
    }

    fn message(&mut self) -> Result<bool, RfbError> {
        let Some([kind]) = self.peek::<1>(0) else { return Ok(self.wait_in(State::Message)) };
        match kind {
            0 => {
                let Some([_, _, high, low]) = self.take_array::<4>() else {
                    return Ok(self.wait_in(State::Message));
                };
                Ok(self.goto(State::RectHeader { left: u16::from_be_bytes([high, low]) }))
            }
            1 => {
                // A colour map, of no use in true colour.
                let Some([_, _, _, _, high, low]) = self.take_array::<6>() else {
                    return Ok(self.wait_in(State::Message));
                };
                Ok(self.start_skip(u64::from(u16::from_be_bytes([high, low])) * 6, State::Message))
            }
            2 => {
                self.taken += 1;
                self.events.push(Event::Bell);
                Ok(self.goto(State::Message))
            }
            3 => {
                let Some([_, _, _, _, a, b, c, d]) = self.take_array::<8>() else {
                    return Ok(self.wait_in(State::Message));
                };
                // A negative length announces the extended clipboard, which was not asked for.
                let length = i32::from_be_bytes([a, b, c, d]).unsigned_abs();
                if length > MAX_CUT_TEXT {
                    return Err(RfbError::Length { what: "a clipboard", length: length.into() });
                }
                Ok(self.start_skip(length.into(), State::Message))
            }
            other => Err(RfbError::Message(other)),
        }
    }

    fn start_skip(&mut self, bytes: u64, then: State) -> bool {
        self.goto(State::Skip { bytes, then: Box::new(then) })
    }

    fn skip(&mut self, bytes: u64, then: State) -> bool {
        let there = (self.input.len() - self.taken) as u64;
        let now = there.min(bytes);
        self.taken += now as usize;
        if now == bytes {
            return self.goto(then);
        }
        self.wait_in(State::Skip { bytes: bytes - now, then: Box::new(then) })
    }

    /// Ends an update when no rectangle is left, else reads the next header. `65535` rectangles mean "until LastRect".
    fn rect_header(&mut self, left: u16) -> Result<bool, RfbError> {
        if left == 0 {
            return Ok(self.end_update());
        }
        let here = State::RectHeader { left };
        let Some([x1, x0, y1, y0, w1, w0, h1, h0, a, b, c, d]) = self.peek::<12>(0) else {
            return Ok(self.wait_in(here));
        };
        let rect = Rect {
            x: u16::from_be_bytes([x1, x0]).into(),
            y: u16::from_be_bytes([y1, y0]).into(),
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
        };
        let next = State::RectHeader { left: left - 1 };
        let number = i32::from_be_bytes([a, b, c, d]);
        match number {
            encoding::RAW => {
                self.check_inside(rect)?;
                self.pixels = true;
                self.taken += 12;
                Ok(self.goto(State::RawRows { left: left - 1, rect, row: 0 }))
            }
            encoding::COPY_RECT => {
                self.check_inside(rect)?;
                let Some([x1, x0, y1, y0]) = self.peek::<4>(12) else { return Ok(self.wait_in(here)) };
                let from = Rect {
                    x: u16::from_be_bytes([x1, x0]).into(),
                    y: u16::from_be_bytes([y1, y0]).into(),
                    ..rect
                };
                self.check_inside(from)?;
                self.taken += 16;
                self.pixels = true;
                self.frame.copy(from.x, from.y, rect);
                Ok(self.goto(next))
            }
            encoding::ZRLE => {
                self.pixels = true;
                self.zrle_rect(rect, here, next)
            }
            encoding::DESKTOP_SIZE => {
                self.taken += 12;
                self.resize(rect.width, rect.height)?;
                Ok(self.goto(next))
            }
            encoding::EXTENDED_DESKTOP_SIZE => {
                let Some([screens, _, _, _]) = self.peek::<4>(12) else { return Ok(self.wait_in(here)) };
                self.taken += 16;
                // x is the reason, y the result of a request: a refused request changes nothing.
                if !(rect.x == 1 && rect.y != 0) {
                    self.resize(rect.width, rect.height)?;
                }
                Ok(self.start_skip(u64::from(screens) * 16, next))
            }
            encoding::LAST_RECT => {
                self.taken += 12;
                Ok(self.goto(State::RectHeader { left: 0 }))
            }
            encoding::QEMU_EXTENDED_KEYS => {
                self.taken += 12;
                self.extended_keys = true;
                self.events.push(Event::ExtendedKeys);
                Ok(self.goto(next))
            }
            encoding::QEMU_LED_STATE => {
                let Some([leds]) = self.peek::<1>(12) else { return Ok(self.wait_in(here)) };
                self.taken += 13;
                let leds = Leds { scroll: leds & 1 != 0, num: leds & 2 != 0, caps: leds & 4 != 0 };
                self.leds = Some(leds);
                self.events.push(Event::Leds(leds));
                Ok(self.goto(next))
            }
            other => self.ignored_rect(other, rect, here, next),
        }
    }

    /// Pseudo encodings that some servers send without being asked: their payload is skipped.
    fn ignored_rect(&mut self, number: i32, rect: Rect, here: State, next: State) -> Result<bool, RfbError> {
        let area = u64::from(rect.width) * u64::from(rect.height);
        let mask = u64::from(rect.width.div_ceil(8)) * u64::from(rect.height);
        let payload = match number {
            encoding::CURSOR => area * 4 + mask,
            encoding::X_CURSOR if area == 0 => 0,
            encoding::X_CURSOR => 6 + 2 * mask,
            encoding::QEMU_POINTER_MODE => 0,
            encoding::DESKTOP_NAME => {
                let Some(length) = self.peek::<4>(12).map(u32::from_be_bytes) else {
                    return Ok(self.wait_in(here));
                };
                if length > MAX_TEXT {
                    return Err(RfbError::Length { what: "a name", length: length.into() });
                }
                4 + u64::from(length)
            }
            other => return Err(RfbError::Encoding(other)),
        };
        if payload > u64::from(MAX_CUT_TEXT) {
            return Err(RfbError::Length { what: "a cursor", length: payload });
        }
        self.taken += 12;
        Ok(self.start_skip(payload, next))
    }

    fn zrle_rect(&mut self, rect: Rect, here: State, next: State) -> Result<bool, RfbError> {
        self.check_inside(rect)?;
        let Some(length) = self.peek::<4>(12).map(u32::from_be_bytes) else { return Ok(self.wait_in(here)) };
        let most = u64::from(rect.width) * u64::from(rect.height) * 5 + 64 * 1024;
        if u64::from(length) > most {
            return Err(RfbError::Length { what: "a compressed update", length: length.into() });
        }
        let end = self.taken + 16 + length as usize;
        let Some(packed) = self.input.get(self.taken + 16..end) else { return Ok(self.wait_in(here)) };
        self.inflater.rect(packed, rect, &mut self.frame)?;
        self.taken = end;
        Ok(self.goto(next))
    }

    fn raw_rows(&mut self, left: u16, rect: Rect, from: u32) -> Result<bool, RfbError> {
        let mut row = from;
        let mut pixels = Vec::with_capacity(rect.width as usize);
        while rect.width > 0 && row < rect.height {
            let Some(bytes) = self.take(rect.width as usize * 4) else {
                return Ok(self.wait_in(State::RawRows { left, rect, row }));
            };
            pixels.clear();
            for pixel in bytes.chunks_exact(4) {
                if let [blue, green, red, _] = *pixel {
                    pixels.push(u32::from_le_bytes([blue, green, red, 0]));
                }
            }
            self.frame.put_row(rect.x, rect.y + row, &pixels);
            row += 1;
        }
        Ok(self.goto(State::RectHeader { left }))
    }

    fn check_inside(&self, rect: Rect) -> Result<(), RfbError> {
        if self.frame.holds(rect) {
            return Ok(());
        }
        Err(RfbError::Outside { x: rect.x, y: rect.y, width: rect.width, height: rect.height })
    }

    fn resize(&mut self, width: u32, height: u32) -> Result<(), RfbError> {
        if (width, height) != (self.frame.width(), self.frame.height()) {
            self.frame = Frame::new(width, height)?;
            self.resized = true;
            self.events.push(Event::Resized { width, height });
        }
        Ok(())
    }

    /// Asks for the next update at once, so that the picture stays fresh without any timer.
    fn end_update(&mut self) -> bool {
        let whole = std::mem::take(&mut self.resized);
        self.request_update(!whole);
        // Before the first pixels, an update tells of keys or lights only: the black picture is nobody's.
        if std::mem::take(&mut self.pixels) {
            self.drawn = true;
            self.drawings += 1;
        }
        let dirty = if self.drawn { self.frame.take_dirty() } else { None };
        self.events.push(Event::Updated(dirty));
        self.goto(State::Message)
    }
}
