//! The error every API handler returns, in Proxmox's own shapes.
//!
//! Invariant: `message` is the text a real server dies with, without its trailing newline; the HTTP layer puts
//! it into the reason phrase and into the JSON body (proxmox.md §1).

use serde_json::{Map, Value};

/// What a call failed with.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The text, without the trailing newline.
    pub message: String,
    /// Per-parameter errors of a 400.
    pub errors: Option<Map<String, Value>>,
    /// What the body holds.
    pub body: ErrorBody,
}

/// The body of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorBody {
    /// `{"data":null,"message":…}`, from the API.
    Json,
    /// The text alone, from the HTTP layer.
    Text,
    /// Nothing, as of a 401.
    Empty,
}

/// What handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// The text with what is wrong with each parameter, for people.
    pub fn whole_text(&self) -> String {
        let each = self
            .errors
            .iter()
            .flatten()
            .map(|(name, text)| format!(" {name}: {}", text.as_str().unwrap_or_default()));
        each.fold(self.message.trim_end().to_owned(), |all, one| all + &one)
    }

    /// A Perl `die`: status 500 with its text.
    pub fn die(message: impl Into<String>) -> Self {
        ApiError { status: 500, message: message.into(), errors: None, body: ErrorBody::Json }
    }

    /// Another status with its text.
    pub fn status(status: u16, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), errors: None, body: ErrorBody::Json }
    }

    /// A 401: late and without a body.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        ApiError { status: 401, message: message.into(), errors: None, body: ErrorBody::Empty }
    }

    /// An error of the HTTP layer, whose body is the text.
    pub fn plain(status: u16, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), errors: None, body: ErrorBody::Text }
    }

    /// A 400 for several parameters.
    pub fn parameters(errors: Map<String, Value>) -> Self {
        ApiError {
            status: 400,
            message: "Parameter verification failed.".to_owned(),
            errors: Some(errors),
            body: ErrorBody::Json,
        }
    }

    /// A 400 for one parameter.
    pub fn parameter(name: &str, text: impl Into<String>) -> Self {
        let mut errors = Map::new();
        errors.insert(name.to_owned(), Value::String(text.into()));
        ApiError::parameters(errors)
    }

    /// A 403 that names what is missing, `what` being `PATH, PRIVILEGE`.
    pub fn forbidden(what: &str) -> Self {
        ApiError::status(403, format!("Permission check failed ({what})"))
    }

    /// The 403 of a compound check, which names nothing.
    pub fn forbidden_unnamed() -> Self {
        ApiError::status(403, "Permission check failed")
    }

    /// The 500 of a VM whose configuration file is not there.
    pub fn no_such_vm(node: &str, vmid: u32) -> Self {
        ApiError::die(format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"))
    }
}

impl From<ApiError> for String {
    fn from(error: ApiError) -> Self {
        error.message
    }
}
