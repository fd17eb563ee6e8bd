//! `VncAuth`: the challenge of RFB's security type 2, encrypted with DES.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

/// Answers a challenge: two DES blocks under the first eight bytes of the password, each byte's bits
/// reversed (RFC 6143 §7.2.2 with the well-known deviation of every implementation).
pub(super) fn respond(password: &str, challenge: [u8; 16]) -> [u8; 16] {
    let mut key = [0_u8; 8];
    for (slot, byte) in key.iter_mut().zip(password.bytes()) {
        *slot = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut answer = challenge;
    for half in answer.chunks_exact_mut(8) {
        let mut block = [0_u8; 8];
        block.copy_from_slice(half);
        let mut block = block.into();
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector was made with `openssl enc -des-ecb -K <bit-reversed key> -nopad`.
    #[test]
    fn the_answer_equals_the_one_openssl_gives() {
        let challenge: [u8; 16] = core::array::from_fn(|index| index as u8);
        let answer = respond("password", challenge);
        assert_eq!(answer, OPENSSL_ANSWER);
        assert_eq!(respond("password-and-more", challenge), answer, "only eight bytes count");
        assert_ne!(respond("", challenge), answer);
    }

    const OPENSSL_ANSWER: [u8; 16] =
        [0xb8, 0x66, 0x92, 0x41, 0x25, 0xc8, 0xee, 0xbb, 0x9d, 0xeb, 0xc1, 0xdb, 0x61, 0xc5, 0x38, 0xe2];
}
