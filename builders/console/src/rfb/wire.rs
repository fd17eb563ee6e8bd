//! Numbers of the RFB protocol (RFC 6143 and the community's `rfbproto` document), and the messages a client sends.

/// Encoding numbers. Those below zero are pseudo encodings.
pub(super) mod encoding {
    pub const RAW: i32 = 0;
    pub const COPY_RECT: i32 = 1;
    pub const ZRLE: i32 = 16;
    pub const DESKTOP_SIZE: i32 = -223;
    pub const LAST_RECT: i32 = -224;
    pub const CURSOR: i32 = -239;
    pub const X_CURSOR: i32 = -240;
    pub const QEMU_POINTER_MODE: i32 = -257;
    pub const QEMU_EXTENDED_KEYS: i32 = -258;
    pub const QEMU_LED_STATE: i32 = -261;
    pub const DESKTOP_NAME: i32 = -307;
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;

    /// What this client asks for, best first. JPEG never is: text must arrive exactly. The pointer's picture is asked
    /// for so that the server does not paint it over the text.
    pub const WANTED: [i32; 9] = [
        ZRLE,
        COPY_RECT,
        RAW,
        DESKTOP_SIZE,
        EXTENDED_DESKTOP_SIZE,
        LAST_RECT,
        QEMU_EXTENDED_KEYS,
        CURSOR,
        QEMU_LED_STATE,
    ];
}

/// `SetPixelFormat`: 32 bits a pixel, depth 24, little endian, bytes blue, green, red, unused.
pub(super) const SET_PIXEL_FORMAT: [u8; 20] =
    [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

/// `SetEncodings` with [`encoding::WANTED`].
pub(super) fn set_encodings() -> Vec<u8> {
    let mut message = vec![2, 0];
    message.extend_from_slice(&(encoding::WANTED.len() as u16).to_be_bytes());
    for number in encoding::WANTED {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message
}

/// `FramebufferUpdateRequest` for the whole picture.
pub(super) fn update_request(incremental: bool, width: u32, height: u32) -> [u8; 10] {
    let [w1, w0] = (width.min(0xffff) as u16).to_be_bytes();
    let [h1, h0] = (height.min(0xffff) as u16).to_be_bytes();
    [3, u8::from(incremental), 0, 0, 0, 0, w1, w0, h1, h0]
}

/// `KeyEvent` by keysym.
pub(super) fn key_event(down: bool, keysym: u32) -> [u8; 8] {
    let [a, b, c, d] = keysym.to_be_bytes();
    [4, u8::from(down), 0, 0, a, b, c, d]
}

/// QEMU's extended key event: keysym and XT scancode (`0x80` set for keys with the `e0` prefix).
pub(super) fn extended_key_event(down: bool, keysym: u32, scancode: u32) -> [u8; 12] {
    let [a, b, c, d] = keysym.to_be_bytes();
    let [e, f, g, h] = scancode.to_be_bytes();
    [255, 0, 0, u8::from(down), a, b, c, d, e, f, g, h]
}
