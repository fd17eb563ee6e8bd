//! NTLMv2 as a client: the three messages of a login, and the sealing of what is said after it.
//!
//! Facts from [MS-NLMP]: messages 2.2.1, NTLMv2 3.3.2, integrity code 3.1.5.1.2, keys and sealing 3.4.4 and 3.4.5.
//! Nothing older is spoken: no LM, no NTLMv1, no keys of 56 bits.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md4::Md4;
use md5::{Digest as _, Md5};
use rc4::{Rc4, StreamCipher as _};

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
/// Unicode, target name asked for, signing, sealing, NTLM, always signed, extended session security, version, 128 bits,
/// key exchange ([MS-NLMP] 2.2.2.5).
const FLAGS: u32 = 0x6208_8235;
/// What a server must have agreed to: Unicode, sealing, extended session security, key exchange, 128 bits.
const NEEDED: u32 = 0x6008_0021;
/// A version of Windows is named in each message and looked at by nobody: 10.0, NTLM revision 15.
const WINDOWS: [u8; 8] = [10, 0, 0, 0, 0, 0, 0, 15];
/// Where the payload of the third message begins, behind version and integrity code.
const HEADER: usize = 88;
const INTEGRITY_AT: usize = 72;
/// Ids of what a server tells of itself ([MS-NLMP] 2.2.2.1).
const AV_END: u16 = 0;
const AV_FLAGS: u16 = 6;
const AV_TIMESTAMP: u16 = 7;

/// Why a login can't go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum NtlmError {
    /// The server's message is none.
    #[error("the server's NTLM message makes no sense")]
    Malformed,
    /// The server wants something weaker.
    #[error("the server does not agree to NTLMv2 with sealing and 128 bits (it offers {0:#010x})")]
    Weak(u32),
    /// A sealed answer was changed on its way.
    #[error("an answer's NTLM signature is wrong")]
    Forged,
}

/// Who logs in.
#[derive(Clone)]
pub(super) struct Identity {
    pub user: String,
    /// Empty for an account of the machine itself.
    pub domain: String,
    pub password: String,
}

impl Identity {
    /// `user`, `DOMAIN\user` or `user@domain`; the last one stays whole, as Windows reads it.
    pub fn new(name: &str, password: &str) -> Self {
        let (domain, user) = name.split_once('\\').unwrap_or(("", name));
        Self { user: user.to_owned(), domain: domain.to_owned(), password: password.to_owned() }
    }
}

/// What is drawn at random for a login; given, so that Microsoft's examples can be followed.
pub(super) struct Chance {
    pub client: [u8; 8],
    pub session: [u8; 16],
    /// Used when the server tells no time: 100 ns since 1601.
    pub time: u64,
}

impl Chance {
    pub fn draw() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let ticks = u64::try_from(since.as_nanos() / 100).unwrap_or_default();
        Self { client: rand::random(), session: rand::random(), time: ticks + 116_444_736_000_000_000 }
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let Ok(mut mac) = Hmac::<Md5>::new_from_slice(key) else { return [0; 16] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn cipher(key: &[u8; 16]) -> Option<Rc4> {
    use rc4::KeyInit as _;
    Rc4::new_from_slice(key).ok()
}

/// NTOWFv2: what stands for the password.
fn owf(identity: &Identity) -> [u8; 16] {
    let name = format!("{}{}", identity.user.to_uppercase(), identity.domain);
    hmac_md5(&Md4::digest(utf16(&identity.password)), &[&utf16(&name)])
}

/// The first message.
pub(super) fn negotiate() -> Vec<u8> {
    let mut message = SIGNATURE.to_vec();
    message.extend_from_slice(&1_u32.to_le_bytes());
    message.extend_from_slice(&FLAGS.to_le_bytes());
    // No domain and no workstation.
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(&WINDOWS);
    message
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// The server's message, as far as it matters.
struct Challenge {
    flags: u32,
    server: [u8; 8],
    target: Vec<u8>,
}

impl Challenge {
    fn read(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(SIGNATURE) || u32::from_le_bytes(number(bytes, 8)?) != 2 {
            return None;
        }
        let length = usize::from(u16::from_le_bytes(number(bytes, 40)?));
        let offset = usize::try_from(u32::from_le_bytes(number(bytes, 44)?)).ok()?;
        Some(Self {
            flags: u32::from_le_bytes(number(bytes, 20)?),
            server: number(bytes, 24)?,
            target: bytes.get(offset..offset.checked_add(length)?)?.to_vec(),
        })
    }

    /// What the server tells of itself, piece by piece.
    fn pairs(&self) -> Option<Vec<(u16, &[u8])>> {
        let (mut pairs, mut at) = (Vec::new(), 0);
        loop {
            let id = u16::from_le_bytes(number(&self.target, at)?);
            let length = usize::from(u16::from_le_bytes(number(&self.target, at + 2)?));
            if id == AV_END {
                return Some(pairs);
            }
            pairs.push((id, self.target.get(at + 4..at + 4 + length)?));
            at += 4 + length;
        }
    }
}

/// The third message, and the keys for what follows it.
pub(super) fn authenticate(
    identity: &Identity,
    challenge: &[u8],
    chance: &Chance,
) -> Result<(Vec<u8>, Sealing), NtlmError> {
    let read = Challenge::read(challenge).ok_or(NtlmError::Malformed)?;
    if read.flags & NEEDED != NEEDED {
        return Err(NtlmError::Weak(read.flags));
    }
    let pairs = read.pairs().ok_or(NtlmError::Malformed)?;
    let told: Option<[u8; 8]> =
        pairs.iter().find(|(id, _)| *id == AV_TIMESTAMP).and_then(|(_, value)| (*value).try_into().ok());
    let mut target = Vec::new();
    let mut pair = |id: u16, value: &[u8]| {
        target.extend_from_slice(&id.to_le_bytes());
        target.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
        target.extend_from_slice(value);
    };
    pairs.iter().filter(|(id, _)| *id != AV_FLAGS).for_each(|(id, value)| pair(*id, value));
    if told.is_some() {
        // There is an integrity code.
        pair(AV_FLAGS, &2_u32.to_le_bytes());
    }
    pair(AV_END, &[]);
    let owf = owf(identity);
    let (proof, blob) =
        response(&owf, &read.server, &chance.client, told.unwrap_or(chance.time.to_le_bytes()), &target);
    let base = hmac_md5(&owf, &[&proof]);
    let mut encrypted = chance.session;
    cipher(&base).ok_or(NtlmError::Malformed)?.apply_keystream(&mut encrypted);
    let lm = match told {
        Some(_) => vec![0; 24],
        None => {
            let mac = hmac_md5(&owf, &[&read.server, &chance.client]);
            [mac.as_slice(), chance.client.as_slice()].concat()
        }
    };
    let nt = [proof.as_slice(), &blob].concat();
    let mut message = SIGNATURE.to_vec();
    message.extend_from_slice(&3_u32.to_le_bytes());
    let mut payload: Vec<u8> = Vec::new();
    for field in
        [&lm, &nt, &utf16(&identity.domain), &utf16(&identity.user), &Vec::new(), &encrypted.to_vec()]
    {
        let length = u16::try_from(field.len()).map_err(|_long| NtlmError::Malformed)?.to_le_bytes();
        let offset = u32::try_from(HEADER + payload.len()).map_err(|_long| NtlmError::Malformed)?;
        message.extend_from_slice(&length);
        message.extend_from_slice(&length);
        message.extend_from_slice(&offset.to_le_bytes());
        payload.extend_from_slice(field);
    }
    message.extend_from_slice(&((FLAGS & read.flags) | NEEDED).to_le_bytes());
    message.extend_from_slice(&WINDOWS);
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(&payload);
    if told.is_some() {
        let code = hmac_md5(&chance.session, &[&negotiate(), challenge, &message]);
        if let Some(place) = message.get_mut(INTEGRITY_AT..HEADER) {
            place.copy_from_slice(&code);
        }
    }
    Ok((message, Sealing::of_client(&chance.session).ok_or(NtlmError::Malformed)?))
}

/// The proof of NTLMv2, and what it proves.
fn response(
    owf: &[u8; 16],
    server: &[u8; 8],
    client: &[u8; 8],
    time: [u8; 8],
    target: &[u8],
) -> ([u8; 16], Vec<u8>) {
    let parts: [&[u8]; 6] = [&[1, 1, 0, 0, 0, 0, 0, 0], &time, client, &[0; 4], target, &[0; 4]];
    let blob = parts.concat();
    (hmac_md5(owf, &[server, &blob]), blob)
}

/// One direction of a sealed conversation.
struct Direction {
    sign: [u8; 16],
    seal: Rc4,
    sequence: u32,
}

impl Direction {
    fn new(session: &[u8; 16], from_to: &str) -> Option<Self> {
        let key = |what: &str| -> [u8; 16] {
            let magic = format!("session key to {from_to} {what} key magic constant\0");
            Md5::new().chain_update(session).chain_update(magic).finalize().into()
        };
        Some(Self { sign: key("signing"), seal: cipher(&key("sealing"))?, sequence: 0 })
    }

    /// The signature of a message that was just sealed, or unsealed, by the same key stream.
    fn signature(&mut self, plain: &[u8]) -> [u8; 16] {
        let sequence = self.sequence.to_le_bytes();
        self.sequence = self.sequence.wrapping_add(1);
        let whole = hmac_md5(&self.sign, &[&sequence, plain]);
        let mut sum = [0; 8];
        sum.copy_from_slice(whole.get(..8).unwrap_or(&[0; 8]));
        self.seal.apply_keystream(&mut sum);
        let mut signature = [0; 16];
        signature[0] = 1;
        signature[4..12].copy_from_slice(&sum);
        signature[12..].copy_from_slice(&sequence);
        signature
    }
}

/// The keys of a conversation after the login.
pub(super) struct Sealing {
    out: Direction,
    back: Direction,
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealing")
    }
}

impl Sealing {
    fn of_client(session: &[u8; 16]) -> Option<Self> {
        Some(Self {
            out: Direction::new(session, "client-to-server")?,
            back: Direction::new(session, "server-to-client")?,
        })
    }

    /// Seals a message: its signature, and what goes over.
    pub fn seal(&mut self, plain: &[u8]) -> ([u8; 16], Vec<u8>) {
        let mut sealed = plain.to_vec();
        self.out.seal.apply_keystream(&mut sealed);
        (self.out.signature(plain), sealed)
    }

    /// Opens an answer.
    pub fn open(&mut self, signature: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NtlmError> {
        let mut plain = sealed.to_vec();
        self.back.seal.apply_keystream(&mut plain);
        if self.back.signature(&plain) == signature { Ok(plain) } else { Err(NtlmError::Forged) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The values of [MS-NLMP] 4.2.1.
    fn example() -> (Identity, [u8; 8], [u8; 8]) {
        let identity = Identity { user: "User".into(), domain: "Domain".into(), password: "Password".into() };
        (identity, 0x0123_4567_89ab_cdef_u64.to_be_bytes(), [0xaa; 8])
    }

    #[test]
    fn microsofts_example_of_ntlmv2_comes_out_the_same() {
        // [MS-NLMP] 4.2.4.1 and 4.2.4.2.
        let (identity, server, client) = example();
        let owf = owf(&identity);
        assert_eq!(hex(&owf), "0c868a403bfd7a93a3001ef22ef02e3f");
        let mut target = Vec::new();
        for (id, text) in [(2_u16, "Domain"), (1, "Server")] {
            target.extend_from_slice(&id.to_le_bytes());
            target.extend_from_slice(&12_u16.to_le_bytes());
            target.extend_from_slice(&utf16(text));
        }
        target.extend_from_slice(&[0; 4]);
        let (proof, _) = response(&owf, &server, &client, [0; 8], &target);
        assert_eq!(hex(&proof), "68cd0ab851e51c96aabc927bebef6a1c");
        assert_eq!(hex(&hmac_md5(&owf, &[&proof])), "8de40ccadbc14a82f15cb0ad0de95ca3");
    }

    #[test]
    fn microsofts_example_of_sealing_comes_out_the_same() {
        // [MS-NLMP] 4.2.4.4.
        let mut sealing = Sealing::of_client(&[0x55; 16]).unwrap();
        let (signature, sealed) = sealing.seal(&utf16("Plaintext"));
        assert_eq!(hex(&sealed), "54e50165bf1936dc996020c1811b0f06fb5f");
        assert_eq!(hex(&signature), "010000007fb38ec5c55d497600000000");
    }

    #[test]
    fn a_server_that_makes_no_sense_or_is_weak_is_refused() {
        let (identity, ..) = example();
        let chance = || Chance { client: [1; 8], session: [2; 16], time: 3 };
        let told = |bytes: &[u8]| authenticate(&identity, bytes, &chance()).map(drop).unwrap_err();
        assert_eq!(told(b""), NtlmError::Malformed);
        let mut challenge = SIGNATURE.to_vec();
        challenge.extend_from_slice(&2_u32.to_le_bytes());
        challenge.extend_from_slice(&[0; 8]);
        challenge.extend_from_slice(&0x1_u32.to_le_bytes());
        challenge.extend_from_slice(&[0; 16]);
        challenge.extend_from_slice(&[4, 0, 4, 0, 48, 0, 0, 0]);
        challenge.extend_from_slice(&[0; 4]);
        assert_eq!(told(&challenge), NtlmError::Weak(1));
        for cut in 0..challenge.len() {
            assert_eq!(told(&challenge[..cut]), NtlmError::Malformed, "{cut}");
        }
    }

    #[test]
    fn an_answer_that_was_changed_is_refused() {
        let mut ours = Sealing::of_client(&[7; 16]).unwrap();
        let mut theirs = Sealing::of_client(&[7; 16]).unwrap();
        std::mem::swap(&mut theirs.out, &mut theirs.back);
        let (signature, mut sealed) = theirs.seal(b"<answer/>");
        assert_eq!(ours.open(&signature, &sealed).unwrap(), b"<answer/>");
        let (signature, _) = theirs.seal(b"<answer/>");
        sealed[3] ^= 1;
        assert_eq!(ours.open(&signature, &sealed), Err(NtlmError::Forged));
    }
}
