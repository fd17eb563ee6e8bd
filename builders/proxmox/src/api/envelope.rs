//! The JSON around every answer: `{"data": …}`, with `message` and `errors` when something is wrong.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What a successful answer says.
#[derive(Debug, Default, Deserialize)]
pub struct Envelope {
    /// The method's own answer; null for methods that return nothing.
    #[serde(default)]
    pub data: Value,
    /// How many lines or entries there are in all (task logs).
    #[serde(default)]
    pub total: Option<u64>,
}

/// What an answer with a status of 400 or more says.
#[derive(Debug, Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<BTreeMap<String, Value>>,
}

/// The text and the field errors of a refused request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The target's words on one line.
    pub text: String,
    /// What is wrong with single parameters, by name.
    pub fields: Vec<(String, String)>,
}

impl Refusal {
    /// Puts a refusal together from the reason phrase and the body.
    ///
    /// The reason phrase is the only place where PVE 7 and early 8 say what is wrong; later ones repeat it in
    /// `message`, longer (pve-http-server 5.2.0). An error text with a carriage return in it arrives as a bare
    /// `400 Bad Request` with no body (observed on PVE 9.2).
    #[must_use]
    pub fn read(reason: Option<&[u8]>, body: &[u8]) -> Self {
        let complaint: Complaint = serde_json::from_slice(body).unwrap_or_default();
        let reason = reason.map(String::from_utf8_lossy).unwrap_or_default();
        let message = complaint.message.unwrap_or_default();
        let longer = if message.trim().is_empty() { reason.as_ref() } else { message.as_str() };
        let mut fields = Vec::new();
        for (name, value) in complaint.errors.unwrap_or_default() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fields.push((name, one_line(&text)));
        }
        Self { text: one_line(longer), fields }
    }

    /// Text and field errors in one.
    #[must_use]
    pub fn full_text(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(name, text)| format!("{name}: {text}")).collect();
        match (self.text.is_empty(), fields.is_empty()) {
            (false, true) => self.text.clone(),
            (true, false) => fields.join("; "),
            (false, false) => format!("{} ({})", self.text.trim_end_matches('.'), fields.join("; ")),
            (true, true) => String::new(),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_whichever_place_the_version_uses() {
        let table: [(&str, &[u8], &str, &str); 5] = [
            ("PVE 7", b"VM is locked (clone)", r#"{"data":null}"#, "VM is locked (clone)"),
            (
                "PVE 9",
                b"VM is locked",
                r#"{"message":"VM is locked (clone)\n","data":null}"#,
                "VM is locked (clone)",
            ),
            (
                "field errors",
                b"Parameter verification failed.",
                r#"{"errors":{"vmid":"type check failed\n","bogus":"not defined"},"message":"Parameter verification failed.\n","data":null}"#,
                "Parameter verification failed (bogus: not defined; vmid: type check failed)",
            ),
            ("text with a carriage return", b"", "", ""),
            ("not JSON", b"upload failed", "upload failed at AnyEvent.pm", "upload failed"),
        ];
        for (case, reason, body, expected) in table {
            assert_eq!(Refusal::read(Some(reason), body.as_bytes()).full_text(), expected, "{case}");
        }
    }
}
