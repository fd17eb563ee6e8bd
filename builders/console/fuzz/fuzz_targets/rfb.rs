//! The RFB client on any bytes, cut anywhere: it never panics, never grows without bound, and reads what it drew.
#![no_main]

use forge_console::Screen;
use forge_console::rfb::RfbClient;
use libfuzzer_sys::fuzz_target;

/// A handshake, so that most inputs are messages and not greetings.
const GREETING: &[u8] = b"RFB 003.008\n\x01\x01\0\0\0\0\0\x10\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04QEMU";

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (greeted, cut, bytes) = input;
    let Ok(mut client) = RfbClient::new(Some("password")) else { return };
    if greeted && client.receive(GREETING).is_err() {
        return;
    }
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        if client.receive(piece).is_err() {
            break;
        }
        let _sent = client.take_output();
    }
    let _read = Screen::read(client.frame());
});
