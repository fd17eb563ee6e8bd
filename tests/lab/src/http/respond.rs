//! Writing an answer: JSON with its keys in any order, the error's text in the status line, gzip when it is asked for.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use rand::seq::SliceRandom as _;
use serde_json::{Map, Value, json};

use super::Cut;
use crate::api::Answer;
use crate::error::{ApiError, ErrorBody};
use crate::page::Page;

/// A body of at least this size is compressed for clients that ask for it.
const COMPRESS_FROM: usize = 1024;

/// How long a connection that breaks off in the midst of a body stays open.
const CUT_PAUSE: Duration = Duration::from_millis(20);

/// How an answer is wrapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// `/api2/extjs`: always 200, the outcome in the body.
    pub extjs: bool,
    /// Whether the client takes gzip.
    pub gzip: bool,
    /// Whether pvedaemon answers through pveproxy.
    pub protected: bool,
    /// Whether the connection has had its share of requests.
    pub last: bool,
}

/// A body that may break off.
#[derive(Debug)]
pub(super) struct LabBody {
    bytes: Option<Bytes>,
    length: u64,
    /// The pause before it breaks off, in which what was sent goes out.
    cut: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl LabBody {
    fn whole(bytes: Bytes) -> Self {
        LabBody { length: bytes.len() as u64, bytes: Some(bytes), cut: None }
    }

    /// Breaks off after that many bytes.
    pub(super) fn truncate(&mut self, at: usize) {
        if let Some(bytes) = &mut self.bytes
            && at < bytes.len()
        {
            bytes.truncate(at);
            self.cut = Some(Box::pin(tokio::time::sleep(CUT_PAUSE)));
        }
    }
}

impl hyper::body::Body for LabBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match (self.bytes.take(), &mut self.cut) {
            (Some(bytes), _) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (_, Some(pause)) => pause.as_mut().poll(context).map(|()| Some(Err(Cut))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.cut.is_none() && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            Some(_) => SizeHint::with_exact(self.length),
            None => SizeHint::default(),
        }
    }
}

/// The response of a call that succeeded.
pub(super) fn success(answer: Answer, form: Form) -> Response<LabBody> {
    let mut document = match answer {
        Answer::Data(data) => json!({"data": data}),
        Answer::Page(data, total) => json!({"data": data, "total": total}),
        Answer::Upgrade(response) => return (*response).map(|body: Full<Bytes>| whole_of(&body)),
        Answer::File(bytes) => {
            let mut response = with_headers(StatusCode::OK, bytes, "text/plain", form.gzip);
            connection(&mut response, form);
            return response;
        }
    };
    if form.extjs {
        document["success"] = 1.into();
    }
    let text = shuffled(document).to_string();
    let mut response = with_headers(StatusCode::OK, text.into(), "application/json;charset=UTF-8", form.gzip);
    connection(&mut response, form);
    response
}

fn whole_of(_: &Full<Bytes>) -> LabBody {
    // A switch of protocols has no body.
    LabBody::whole(Bytes::new())
}

fn connection(response: &mut Response<LabBody>, form: Form) {
    let headers = response.headers_mut();
    if form.protected || form.last {
        headers.append(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if !form.last {
        headers.append(header::CONNECTION, HeaderValue::from_static("Keep-Alive"));
    }
}

/// A part of the page to look at; it may show and load nothing but the lab's own.
pub(super) fn page(page: Page, last: bool) -> Response<LabBody> {
    let mut response = Response::new(LabBody::whole(page.bytes));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::NOT_FOUND);
    let headers = response.headers_mut();
    let policy = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'";
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(tag) = page.tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    if last {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The response of a call that failed.
pub(super) fn failure(error: &ApiError, form: Form) -> Response<LabBody> {
    let end = if error.status == 501 { "" } else { "\n" };
    let mut document = Map::new();
    document.insert("data".to_owned(), Value::Null);
    document.insert("message".to_owned(), format!("{}{end}", error.message).into());
    if let Some(errors) = &error.errors {
        document.insert("errors".to_owned(), Value::Object(errors.clone()));
    }
    if form.extjs && error.body == ErrorBody::Json {
        document.insert("success".to_owned(), 0.into());
        document.insert("status".to_owned(), error.status.into());
        let text = shuffled(Value::Object(document)).to_string();
        return with_headers(StatusCode::OK, text.into(), "application/json;charset=UTF-8", form.gzip);
    }
    // A carriage return in the text spoils the status line; pveproxy then says only this.
    if error.message.contains('\r') {
        let mut response = with_headers(StatusCode::BAD_REQUEST, Bytes::new(), "text/plain", false);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (body, kind) = match error.body {
        ErrorBody::Empty => (String::new(), "text/plain"),
        ErrorBody::Text => {
            // What died in Perl ends its line.
            let end = if error.status == 500 { "\n" } else { "" };
            (format!("{}{end}", error.message), "text/plain")
        }
        ErrorBody::Json => (shuffled(Value::Object(document)).to_string(), "application/json;charset=UTF-8"),
    };
    let mut response = with_headers(status, body.into(), kind, form.gzip);
    let reason = error.message.lines().next().unwrap_or_default();
    if let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_headers(status: StatusCode, body: Bytes, kind: &'static str, gzip: bool) -> Response<LabBody> {
    let packed = if gzip && body.len() > COMPRESS_FROM { compress(&body) } else { None };
    let mut response = Response::new(LabBody::whole(packed.clone().unwrap_or(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(header::SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if packed.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The time as the node sees it, in seconds since 1970: its clock may be wrong.
pub fn date(response: &mut Response<LabBody>, now: i64) {
    let text =
        jiff::Timestamp::from_second(now).map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some(value) = text.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::DATE, value);
    }
}

fn compress(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    Some(encoder.finish().ok()?.into())
}

/// The same value with the keys of its objects in another order each time, as Perl's hashes have them.
fn shuffled(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(shuffled).collect(),
        Value::Object(map) => {
            let mut pairs: Vec<(String, Value)> =
                map.into_iter().map(|(key, value)| (key, shuffled(value))).collect();
            pairs.shuffle(&mut rand::rng());
            Value::Object(pairs.into_iter().collect())
        }
        scalar => scalar,
    }
}
