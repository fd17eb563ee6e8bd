//! Request bodies: forms with Proxmox's separators, and JSON.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// Bytes a body may have.
pub(super) const LIMIT: usize = 512 * 1024;

/// Reads a body by its content type.
pub(super) fn parse(kind: &str, bytes: &[u8]) -> ApiResult<Map<String, Value>> {
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/x-www-form-urlencoded" | "" => decode_urlencoded(bytes),
        "application/json" => decode_json(bytes),
        _ => Err(ApiError::plain(506, format!("upload 'Content-Type '{kind}' not implemented"))),
    }
}

fn decode_json(bytes: &[u8]) -> ApiResult<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::plain(
            500,
            "Not a HASH reference at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.",
        )),
        Err(error) => {
            let offset = error.column().saturating_sub(1);
            let rest = bytes.get(offset..).map(String::from_utf8_lossy).unwrap_or_default();
            let before = if error.is_eof() { "(end of string)".into() } else { rest };
            Err(ApiError::plain(
                500,
                format!(
                    ", or }} expected while parsing object/hash, at character offset {} (before \"{before}\") at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.",
                    if error.is_eof() { bytes.len() } else { offset }
                ),
            ))
        }
    }
}

/// Decodes a form: `&` and `;` separate, `+` is a space, a repeated key makes an array.
pub(super) fn decode_urlencoded(bytes: &[u8]) -> ApiResult<Map<String, Value>> {
    let mut map = Map::new();
    for pair in bytes.split(|byte| matches!(byte, b'&' | b';')).filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = decode(halves.next().unwrap_or_default());
        let value = decode(halves.next().unwrap_or_default());
        if name.is_empty() {
            continue;
        }
        match map.get_mut(&name) {
            None => drop(map.insert(name, Value::String(value))),
            Some(Value::Array(list)) => list.push(Value::String(value)),
            Some(first) => *first = Value::Array(vec![first.take(), Value::String(value)]),
        }
    }
    Ok(map)
}

fn decode(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_encoding::percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_separates_and_a_repeated_key_makes_an_array() {
        let map = decode_urlencoded(b"boot=order=scsi0;ide2&command=a&command=b+c%3B").expect("decodes");
        assert_eq!(map["boot"], "order=scsi0");
        assert_eq!(map["ide2"], "");
        assert_eq!(map["command"], serde_json::json!(["a", "b c;"]));
    }
}
