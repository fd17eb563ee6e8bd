//! Debian's chromium without a window, driven by its DevTools protocol: pages, keys, pictures.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A browser with one page. [`Browser::close`] ends all of its processes and removes its folder; dropping it, when a
/// test fails, kills the first of them, and the others may still write into the folder.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    next: u64,
    /// Pages that are answered from a folder instead of by the server: the start of their address, and the folder.
    served: Option<(String, PathBuf)>,
    /// What the page wrote to its console, and its errors.
    pub said: Vec<String>,
    process: Child,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Whether there is a browser.
    pub fn is_there() -> bool {
        std::process::Command::new("chromium")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// Whether there is a browser; where there is none, the reason is printed.
    ///
    /// # Errors
    /// When there is none where `cargo lab test` has set everything up.
    #[expect(clippy::print_stdout, reason = "a test that is skipped says why")]
    pub fn can_be_had() -> anyhow::Result<bool> {
        if !Self::is_there() {
            let text = "there is no chromium: cargo lab test installs it";
            ensure!(std::env::var_os("FORGE_LAB").is_none(), "{text}");
            println!("skipped: {text}");
            return Ok(false);
        }
        Ok(true)
    }

    /// Starts the browser with an empty page. It takes any certificate: the lab's authority is a new one each time.
    pub async fn start() -> anyhow::Result<Self> {
        let profile = tempfile::Builder::new().prefix("forge-browser-").tempdir()?;
        let log = std::fs::File::create(profile.path().join("log"))?;
        // The sandbox needs rights that neither a container nor a network namespace has; the pages are the tests' own.
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-extensions"])
            .args(["--ignore-certificate-errors", "--remote-debugging-port=0", "--window-size=1280,900"])
            // A page that does not come over the network counts as one from afar, which may not talk to this machine.
            .arg("--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("chromium can't be run")?;
        let (port, path) = address(profile.path()).await?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (socket, _) =
            tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}{path}"), stream).await?;
        let mut browser =
            Browser { socket, session: None, next: 0, served: None, said: Vec::new(), process, profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({})).await?;
        browser.call("Runtime.enable", json!({})).await?;
        Ok(browser)
    }

    /// Answers addresses that begin with `start` from a folder, as the server of such a page would.
    pub async fn serve(&mut self, start: &str, folder: &Path) -> anyhow::Result<()> {
        self.served = Some((start.to_owned(), folder.to_owned()));
        self.call("Fetch.enable", json!({"patterns": [{"urlPattern": format!("{start}*")}]})).await.map(drop)
    }

    /// Goes to an address.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let answer = self.call("Page.navigate", json!({"url": url})).await?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        Ok(())
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> anyhow::Result<Value> {
        let ask = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", ask).await?;
        if let Some(wrong) = answer.get("exceptionDetails") {
            bail!("{expression}: {}", wrong["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true in the page; `show` is another that says how far it is.
    pub async fn until(&mut self, expression: &str, show: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            // While a page is being loaded there may be none to ask.
            if self.value(expression).await.is_ok_and(|value| value == true) {
                return Ok(());
            }
            if started.elapsed() > LIMIT {
                let shown = self.value(show).await;
                bail!("{expression} does not come true: {shown:?}; the page said {:#?}", self.said);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Presses and releases a key as a keyboard does.
    pub async fn press(&mut self, key: char) -> anyhow::Result<()> {
        let (name, code, number) = match key {
            '\n' => ("Enter".to_owned(), "Enter".to_owned(), 13),
            ' ' => (" ".to_owned(), "Space".to_owned(), 32),
            'a'..='z' => (key.to_string(), format!("Key{}", key.to_ascii_uppercase()), key as u32 - 32),
            'A'..='Z' => (key.to_string(), format!("Key{key}"), key as u32),
            '0'..='9' => (key.to_string(), format!("Digit{key}"), key as u32),
            _ => bail!("no key is known for {key:?}"),
        };
        let text = if key == '\n' { "\r".to_owned() } else { key.to_string() };
        let shifted = key.is_ascii_uppercase();
        let mut event = json!({"key": name, "code": code, "windowsVirtualKeyCode": number});
        let shift = |kind: &str| json!({"type": kind, "key": "Shift", "code": "ShiftLeft", "windowsVirtualKeyCode": 16, "location": 1});
        if shifted {
            event["modifiers"] = 8.into();
            self.call("Input.dispatchKeyEvent", shift("rawKeyDown")).await?;
        }
        for (kind, text) in [("keyDown", Some(text)), ("keyUp", None)] {
            event["type"] = kind.into();
            event["text"] = text.unwrap_or_default().into();
            self.call("Input.dispatchKeyEvent", event.clone()).await?;
        }
        if shifted {
            self.call("Input.dispatchKeyEvent", shift("keyUp")).await?;
        }
        Ok(())
    }

    /// A picture of the page as it is seen, as PNG.
    pub async fn picture(&mut self) -> anyhow::Result<Vec<u8>> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        Ok(STANDARD.decode(answer["data"].as_str().unwrap_or_default())?)
    }

    /// Keeps a picture for a person to look at, when `FORGE_LAB_PICTURES` names a folder.
    pub async fn keep(&mut self, name: &str) -> anyhow::Result<()> {
        let picture = self.picture().await?;
        ensure!(picture.starts_with(b"\x89PNG"), "no picture");
        if let Some(folder) = std::env::var_os("FORGE_LAB_PICTURES") {
            std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture)?;
        }
        Ok(())
    }

    /// A width of the window, in CSS pixels; a narrow one is a phone's.
    pub async fn width(&mut self, width: u32) -> anyhow::Result<()> {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await.map(drop)
    }

    /// Ends the browser as its own menu does, and removes what it wrote.
    pub async fn close(mut self) -> anyhow::Result<()> {
        // The browser's own command, not the page's.
        self.session = None;
        self.send("Browser.close", json!({})).await?;
        tokio::time::timeout(LIMIT, self.process.wait()).await.context("the browser does not end")??;
        let started = Instant::now();
        // Its helpers end a moment after it, and would make the folder again to write into it.
        while helpers(self.profile.path())? > 0 {
            ensure!(started.elapsed() < LIMIT, "helpers of the browser do not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.profile.close().context("the browser's folder can't be removed")?;
        Ok(())
    }

    /// Sends a command and waits for its answer; what happens meanwhile is dealt with.
    pub async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let id = self.send(method, params).await?;
        let answer = async {
            loop {
                let message = self.socket.next().await.context("the browser has gone")??;
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text)?;
                if message["id"] == id {
                    return anyhow::Ok(message);
                }
                self.happens(&message).await?;
            }
        };
        let answer = tokio::time::timeout(LIMIT, answer)
            .await
            .with_context(|| format!("the browser does not answer {method}"))??;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }

    async fn send(&mut self, method: &str, params: Value) -> anyhow::Result<u64> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.socket.send(Message::text(message.to_string())).await?;
        Ok(self.next)
    }

    async fn happens(&mut self, event: &Value) -> anyhow::Result<()> {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.consoleAPICalled" => self.said.push(params["args"].to_string()),
            "Runtime.exceptionThrown" => self.said.push(params["exceptionDetails"].to_string()),
            "Fetch.requestPaused" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                let Some((start, folder)) = &self.served else { return Ok(()) };
                let path = url.strip_prefix(start.as_str()).unwrap_or_default();
                let path = path.split(['?', '#']).next().unwrap_or_default();
                let answer = match std::fs::read(folder.join(path)) {
                    Ok(bytes) => json!({
                        "requestId": params["requestId"], "responseCode": 200, "body": STANDARD.encode(bytes),
                        "responseHeaders": [{"name": "Content-Type", "value": kind(path)}],
                    }),
                    Err(_) => json!({"requestId": params["requestId"], "responseCode": 404}),
                };
                // Its answer says nothing, and is passed over when it comes.
                self.send("Fetch.fulfillRequest", answer).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// How many processes were started with this profile.
fn helpers(profile: &Path) -> anyhow::Result<usize> {
    let profile = profile.display().to_string();
    let named = std::fs::read_dir("/proc")?.filter_map(Result::ok).filter(|process| {
        // Whoever ended meanwhile is none.
        std::fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&profile))
    });
    Ok(named.count())
}

/// Where the browser listens: it writes that into its profile.
async fn address(profile: &Path) -> anyhow::Result<(u16, String)> {
    let started = Instant::now();
    loop {
        let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n')
            && let Ok(port) = port.parse()
            && path.starts_with('/')
        {
            return Ok((port, path.trim().to_owned()));
        }
        if started.elapsed() > LIMIT {
            let log = std::fs::read_to_string(profile.join("log")).unwrap_or_default();
            bail!("chromium does not start: {log}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn kind(path: &str) -> &'static str {
    match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        _ => "application/octet-stream",
    }
}
