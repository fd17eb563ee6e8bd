//! Random identifiers in the forms Proxmox writes them.

/// Random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    rand::random()
}

/// A version 4 UUID.
pub fn uuid() -> String {
    let mut raw: [u8; 16] = bytes();
    raw[6] = (raw[6] & 0x0f) | 0x40;
    raw[8] = (raw[8] & 0x3f) | 0x80;
    let hex = hex(&raw);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A MAC address in Proxmox's own range, `BC:24:11`.
pub fn mac() -> String {
    let raw: [u8; 3] = bytes();
    format!("BC:24:11:{:02X}:{:02X}:{:02X}", raw[0], raw[1], raw[2])
}

/// A VNC password as Proxmox makes them: 8 characters from `!` to `` ` ``.
pub fn vnc_password() -> String {
    bytes::<8>().iter().map(|byte| char::from(0x21 + byte % 64)).collect()
}

/// Lower-case hex digits.
pub fn hex(raw: &[u8]) -> String {
    use std::fmt::Write as _;
    raw.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
