//! WS-Management as Windows' remote shell speaks it: the envelopes that are sent, and what is read out of answers.
//!
//! Facts from [MS-WSMV] (remote shell: 2.2.4, 3.1.4.1, 3.1.4.10 to 3.1.4.14) and DSP0226 (WS-Management 1.0).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};

const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
const RESOURCE: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd";
/// How long the server keeps a question open before it says that there is nothing to tell. Shorter than what proxies
/// and firewalls put up with.
pub(super) const LONG_POLL_SECONDS: u32 = 20;
/// The size of an answer that is asked for, and of a question that every server takes: the smallest default of Windows
/// (`MaxEnvelopeSizekb` was 150 before Windows Server 2012 and is 500 since).
pub(super) const ENVELOPE: usize = 153_600;
/// The server has nothing to tell yet ([MS-WSMV] 2.2.4.44: `ERROR_WSMAN_OPERATION_TIMEDOUT`).
const TIMED_OUT: u32 = 2_150_858_793;
/// What is asked is busy (`ERROR_BUSY`).
const BUSY: u32 = 170;
/// There is no such shell, any more (`ERROR_WSMAN_INVALID_SELECTORS`).
const NO_SHELL: u32 = 2_150_858_843;

/// One thing that is asked of the server.
#[derive(Clone, Debug)]
pub(super) enum Ask<'a> {
    /// Open a shell.
    Create,
    /// Run a command line in it; `piped` when it will be given input, which then ends where that ends.
    Command { line: &'a str, piped: bool },
    /// Give bytes to a command's standard input.
    Send { command: &'a str, bytes: &'a [u8], end: bool },
    /// Wait for output or the end.
    Receive { command: &'a str },
    /// End a command.
    Terminate { command: &'a str },
    /// Close the shell.
    Delete,
}

impl Ask<'_> {
    fn action(&self) -> String {
        match self {
            Self::Create => format!("{TRANSFER}/Create"),
            Self::Delete => format!("{TRANSFER}/Delete"),
            Self::Command { .. } => format!("{SHELL}/Command"),
            Self::Send { .. } => format!("{SHELL}/Send"),
            Self::Receive { .. } => format!("{SHELL}/Receive"),
            Self::Terminate { .. } => format!("{SHELL}/Signal"),
        }
    }

    /// What it is, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create => "opening a shell",
            Self::Command { .. } => "starting a command",
            Self::Send { .. } => "sending input",
            Self::Receive { .. } => "waiting for output",
            Self::Terminate { .. } => "ending a command",
            Self::Delete => "closing a shell",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Create => "<rsp:Shell><rsp:InputStreams>stdin</rsp:InputStreams>\
                 <rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>"
                .to_owned(),
            Self::Delete => String::new(),
            Self::Command { line, .. } => {
                format!("<rsp:CommandLine><rsp:Command>{}</rsp:Command></rsp:CommandLine>", escape(*line))
            }
            Self::Send { command, bytes, end } => {
                let end = if *end { " End=\"true\"" } else { "" };
                format!(
                    "<rsp:Send><rsp:Stream Name=\"stdin\" CommandId=\"{}\"{end}>{}</rsp:Stream></rsp:Send>",
                    escape(*command),
                    STANDARD.encode(bytes)
                )
            }
            Self::Receive { command } => format!(
                "<rsp:Receive><rsp:DesiredStream CommandId=\"{}\">stdout stderr</rsp:DesiredStream></rsp:Receive>",
                escape(*command)
            ),
            Self::Terminate { command } => format!(
                "<rsp:Signal CommandId=\"{}\"><rsp:Code>{SHELL}/signal/terminate</rsp:Code></rsp:Signal>",
                escape(*command)
            ),
        }
    }

    fn options(&self) -> &'static str {
        match self {
            // UTF-8; the user's profile is loaded.
            Self::Create => {
                "<w:OptionSet><w:Option Name=\"WINRS_NOPROFILE\">FALSE</w:Option>\
                 <w:Option Name=\"WINRS_CODEPAGE\">65001</w:Option></w:OptionSet>"
            }
            // [MS-WSMV] 2.2.4.11: true is a console, whose input has no end; false is a pipe.
            Self::Command { piped: true, .. } => {
                "<w:OptionSet><w:Option Name=\"WINRS_CONSOLEMODE_STDIN\">FALSE</w:Option>\
                 <w:Option Name=\"WINRS_SKIP_CMD_SHELL\">FALSE</w:Option></w:OptionSet>"
            }
            Self::Command { piped: false, .. } => {
                "<w:OptionSet><w:Option Name=\"WINRS_CONSOLEMODE_STDIN\">TRUE</w:Option>\
                 <w:Option Name=\"WINRS_SKIP_CMD_SHELL\">FALSE</w:Option></w:OptionSet>"
            }
            // Otherwise a server answers at the end only.
            Self::Receive { .. } => {
                "<w:OptionSet><w:Option Name=\"WSMAN_CMDSHELL_OPTION_KEEPALIVE\">TRUE</w:Option></w:OptionSet>"
            }
            _ => "",
        }
    }

    /// The envelope.
    pub fn envelope(&self, to: &str, shell: Option<&str>) -> String {
        let selector = shell.map_or_else(String::new, |id| {
            format!("<w:SelectorSet><w:Selector Name=\"ShellId\">{}</w:Selector></w:SelectorSet>", escape(id))
        });
        let id: u128 = rand::random();
        let hex = format!("{id:032X}");
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        let id = format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32));
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
             <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
             xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
             xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" xmlns:rsp=\"{SHELL}\"><s:Header>\
             <a:To>{}</a:To><a:ReplyTo><a:Address s:mustUnderstand=\"true\">\
             http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address></a:ReplyTo>\
             <w:MaxEnvelopeSize s:mustUnderstand=\"true\">{ENVELOPE}</w:MaxEnvelopeSize>\
             <a:MessageID>uuid:{id}</a:MessageID><w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
             <p:DataLocale xml:lang=\"en-US\" s:mustUnderstand=\"false\"/>\
             <w:OperationTimeout>PT{LONG_POLL_SECONDS}S</w:OperationTimeout>\
             <w:ResourceURI s:mustUnderstand=\"true\">{RESOURCE}</w:ResourceURI>\
             <a:Action s:mustUnderstand=\"true\">{}</a:Action>{selector}{}</s:Header><s:Body>{}</s:Body>\
             </s:Envelope>",
            escape(to),
            self.action(),
            self.options(),
            self.body(),
        )
    }
}

/// The server refused, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}{}", if *code == 0 { String::new() } else { format!(" (WSMan fault {code})") })]
pub(super) struct Fault {
    /// Windows' number; 0 when it gives none.
    pub code: u32,
    /// The subcode's name (`w:TimedOut`), without its prefix.
    pub subcode: String,
    /// Its message.
    pub text: String,
}

impl Fault {
    /// There is nothing to tell yet.
    pub fn is_timeout(&self) -> bool {
        self.code == TIMED_OUT || self.subcode == "TimedOut"
    }

    /// The envelope was larger than the server takes.
    pub fn is_too_large(&self) -> bool {
        self.subcode == "EncodingLimit"
    }

    /// The program's input is still full of what was sent before (`ERROR_BUSY`).
    pub fn is_busy(&self) -> bool {
        self.code == BUSY
    }

    /// The shell is gone: the guest was started anew.
    pub fn is_no_shell(&self) -> bool {
        self.code == NO_SHELL || self.subcode == "InvalidSelectors"
    }
}

/// What an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The id of a new shell.
    pub shell: Option<String>,
    /// The id of a new command.
    pub command: Option<String>,
    /// Output: whether it is from standard error, and the bytes.
    pub streams: Vec<(bool, Vec<u8>)>,
    /// Whether the command has ended.
    pub done: bool,
    /// Its exit code.
    pub exit: Option<i32>,
    /// What is wrong.
    pub fault: Option<Fault>,
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = start.attributes().flatten().find(|each| local(each.key.0) == name)?;
    Some(attribute.value.into_owned())
}

/// A name without its prefix.
fn local(name: &str) -> String {
    name.rsplit(':').next().unwrap_or_default().to_owned()
}

/// Reads an answer.
///
/// # Errors
/// When it is no XML, or holds what is no base64.
pub(super) fn read(text: &str) -> Result<Answer, String> {
    let mut reader = Reader::from_str(text);
    let (mut answer, mut path): (Answer, Vec<String>) = (Answer::default(), Vec::new());
    let (mut value, mut stderr) = (String::new(), false);
    // The outermost words of a fault are general; the provider's own say more.
    let (mut reason, mut detail, mut fault) = (String::new(), String::new(), None::<Fault>);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                value.clear();
                let name = local(start.name().0);
                opened(&name, &start, &mut answer, &mut fault, &mut stderr);
                path.push(name);
            }
            Event::Empty(start) => {
                let name = local(start.name().0);
                opened(&name, &start, &mut answer, &mut fault, &mut stderr);
            }
            Event::Text(piece) => value.push_str(&piece),
            Event::GeneralRef(reference) => value.push_str(&resolved(&reference)),
            Event::End(_) => {
                let name = path.pop().unwrap_or_default();
                let inside = |outer: &str| path.iter().any(|each| each == outer);
                let text = value.trim();
                match name.as_str() {
                    "Selector" | "ShellId" if answer.shell.is_none() && !text.is_empty() => {
                        answer.shell = Some(text.to_owned());
                    }
                    "CommandId" => answer.command = Some(text.to_owned()),
                    "Stream" if !text.is_empty() => {
                        let bytes = STANDARD.decode(text).map_err(|error| format!("a stream: {error}"))?;
                        answer.streams.push((stderr, bytes));
                    }
                    "ExitCode" => {
                        // Windows' status codes have 32 bits, and some clients see them without a sign.
                        let code = text.parse::<i64>().map_err(|_no| format!("the exit code {text}"))?;
                        answer.exit = Some(code as u32 as i32);
                    }
                    "Value" if inside("Subcode") => {
                        fault.get_or_insert_with(empty).subcode = local(text);
                    }
                    "Text" if inside("Reason") => reason = one_line(text),
                    "Message" if inside("WSManFault") && !text.is_empty() => detail = one_line(text),
                    _ => {}
                }
                value.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if let Some(mut fault) = fault {
        fault.text = [detail, reason]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| "a fault without words".into());
        answer.fault = Some(fault);
    }
    Ok(answer)
}

fn empty() -> Fault {
    Fault { code: 0, subcode: String::new(), text: String::new() }
}

fn opened(
    name: &str,
    start: &BytesStart<'_>,
    answer: &mut Answer,
    fault: &mut Option<Fault>,
    stderr: &mut bool,
) {
    match name {
        "Stream" => *stderr = attribute(start, "Name").is_some_and(|name| name == "stderr"),
        "CommandState" => {
            answer.done |= attribute(start, "State").is_some_and(|state| state.ends_with("/Done"));
        }
        "Fault" => _ = fault.get_or_insert_with(empty),
        "WSManFault" => {
            let code = attribute(start, "Code").and_then(|code| code.parse().ok());
            let fault = fault.get_or_insert_with(empty);
            fault.code = code.unwrap_or(fault.code);
        }
        _ => {}
    }
}

/// What stands for a reference in a text.
fn resolved(name: &str) -> String {
    let number = |text: &str, radix| u32::from_str_radix(text, radix).ok().and_then(char::from_u32);
    let found = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => match name.strip_prefix("#x") {
            Some(hex) => number(hex, 16),
            None => name.strip_prefix('#').and_then(|text| number(text, 10)),
        },
    };
    found.map(String::from).unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer in the form that [MS-WSMV] 4.1 shows.
    fn wrapped(body: &str) -> String {
        format!(
            "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"><s:Header/><s:Body>{body}</s:Body></s:Envelope>"
        )
    }

    #[test]
    fn output_comes_out_by_stream_and_in_order_with_the_exit_code() {
        let body = "<rsp:ReceiveResponse><rsp:Stream Name=\"stdout\" CommandId=\"A\">aGk=</rsp:Stream>\
            <rsp:Stream Name=\"stderr\" CommandId=\"A\">b2g=</rsp:Stream><rsp:Stream Name=\"stdout\" CommandId=\"A\" End=\"true\"/>\
            <rsp:CommandState CommandId=\"A\" State=\"http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Done\">\
            <rsp:ExitCode>3221225786</rsp:ExitCode></rsp:CommandState></rsp:ReceiveResponse>";
        let answer = read(&wrapped(body)).unwrap();
        assert_eq!(answer.streams, [(false, b"hi".to_vec()), (true, b"oh".to_vec())]);
        assert_eq!((answer.done, answer.exit), (true, Some(-1_073_741_510)), "STATUS_CONTROL_C_EXIT");
    }

    #[test]
    fn a_fault_is_told_in_the_servers_most_exact_words() {
        let body = "<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>w:InternalError</s:Value></s:Subcode></s:Code>\
            <s:Reason><s:Text xml:lang=\"\">general words</s:Text></s:Reason><s:Detail>\
            <f:WSManFault Code=\"2147942405\" Machine=\"x\"><f:Message>Access is &lt;denied&gt;.\n </f:Message></f:WSManFault></s:Detail></s:Fault>";
        let fault = read(&wrapped(body)).unwrap().fault.unwrap();
        assert_eq!(fault.to_string(), "Access is <denied>. (WSMan fault 2147942405)");
        assert!(!fault.is_timeout());
        let body = "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>w:TimedOut</s:Value></s:Subcode></s:Code>\
            <s:Reason><s:Text>later</s:Text></s:Reason></s:Fault>";
        assert!(read(&wrapped(body)).unwrap().fault.unwrap().is_timeout());
    }

    #[test]
    fn what_is_asked_is_escaped() {
        let text =
            Ask::Command { line: "echo \"<&>\"", piped: false }.envelope("http://h/wsman?a&b", Some("I<D"));
        assert!(text.contains("echo &quot;&lt;&amp;&gt;&quot;"), "{text}");
        assert!(text.contains("I&lt;D") && text.contains("wsman?a&amp;b"));
        assert_eq!(read(&text).unwrap().shell.as_deref(), Some("I<D"));
    }

    /// What Windows servers answered to the client `pypsrp`, whose project keeps the exchanges among its tests
    /// (`tests/responses/test_winrs_*.yml`): the bodies, with its prefixes, spaces and empty elements.
    #[test]
    fn what_real_windows_servers_answered_is_read() {
        let id = "B0973E54-434E-4D99-B4BE-ADE584CE3BFB";
        let created = "<x:ResourceCreated><a:Address>http://192.0.2.11:5985/wsman</a:Address><a:ReferenceParameters>\
            <w:ResourceURI>http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd</w:ResourceURI><w:SelectorSet>\
            <w:Selector Name=\"ShellId\">4283CBDC-3706-415B-88BD-B385F3E51A53</w:Selector></w:SelectorSet>\
            </a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>4283CBDC-3706-415B-88BD-B385F3E51A53</rsp:ShellId>\
            <rsp:Owner>vagrant</rsp:Owner><rsp:IdleTimeOut>PT7200.000S</rsp:IdleTimeOut><rsp:InputStreams>stdin</rsp:InputStreams>\
            <rsp:OutputStreams>stdout stderr</rsp:OutputStreams><rsp:ShellRunTime>P0DT0H0M0S</rsp:ShellRunTime></rsp:Shell>";
        let answer = read(&wrapped(created)).unwrap();
        assert_eq!(answer.shell.as_deref(), Some("4283CBDC-3706-415B-88BD-B385F3E51A53"));
        let begun = format!("<rsp:CommandResponse><rsp:CommandId>{id}</rsp:CommandId></rsp:CommandResponse>");
        assert_eq!(read(&wrapped(&begun)).unwrap().command.as_deref(), Some(id));
        for taken in ["<rsp:SendResponse/>", "<rsp:SignalResponse/>", ""] {
            assert_eq!(read(&wrapped(taken)).unwrap(), Answer::default());
        }
        // Lines in pieces, the end of each stream in an element of its own, then the state.
        let stream = |name: &str, rest: &str, text: &str| {
            format!("<rsp:Stream Name=\"{name}\" CommandId=\"{id}\"{rest}>{text}</rsp:Stream>")
        };
        let state = |code: i32| {
            format!(
                "<rsp:CommandState CommandId=\"{id}\" State=\"{SHELL}/CommandState/Done\"><rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
            )
        };
        let ends =
            format!("{}{}", stream("stdout", " End=\"true\"", ""), stream("stderr", " End=\"true\"", ""));
        for (pieces, code, expected) in [
            (
                vec![("stdout", "b3V0cHV0IDE="), ("stdout", "Cg=="), ("stdout", "b3V0cHV0IDIK")],
                0,
                vec![(false, "output 1"), (false, "\n"), (false, "output 2\n")],
            ),
            (
                vec![("stdout", "b3V0IA0K"), ("stderr", "ZXJyIA0K")],
                1,
                vec![(false, "out \r\n"), (true, "err \r\n")],
            ),
        ] {
            let pieces: String = pieces.iter().map(|(name, text)| stream(name, "", text)).collect();
            let received =
                format!("<rsp:ReceiveResponse>{pieces}{ends}{}</rsp:ReceiveResponse>", state(code));
            let answer = read(&wrapped(&received)).unwrap();
            let expected: Vec<_> =
                expected.into_iter().map(|(stderr, text)| (stderr, text.as_bytes().to_vec())).collect();
            assert_eq!((answer.streams, answer.done, answer.exit), (expected, true, Some(code)));
        }
    }

    #[test]
    fn the_faults_of_real_windows_servers_are_told_apart() {
        let fault = |subcode: &str, code: u32, reason: &str, message: &str| {
            let body = format!(
                "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>w:{subcode}</s:Value></s:Subcode></s:Code>\
                 <s:Reason><s:Text xml:lang=\"en-US\">{reason} </s:Text></s:Reason><s:Detail>\
                 <w:FaultDetail>http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/InvalidValue</w:FaultDetail>\
                 <f:WSManFault xmlns:f=\"http://schemas.microsoft.com/wbem/wsman/1/wsmanfault\" Code=\"{code}\" Machine=\"192.0.2.15\">\
                 <f:Message>{message}</f:Message></f:WSManFault></s:Detail></s:Fault>"
            );
            read(&wrapped(&body)).unwrap().fault.unwrap()
        };
        // A shell or a command that is not there: the same number for both.
        let gone = fault(
            "InvalidSelectors",
            2_150_858_843,
            "The WS-Management service cannot process the request because the request contained invalid selectors for the resource.",
            "The Windows Remote Shell received a request to perform an operation on a command identifier that does not exist. ",
        );
        assert!(gone.is_no_shell() && !gone.is_timeout() && !gone.is_busy());
        assert!(gone.to_string().starts_with("The Windows Remote Shell received a request"), "{gone}");
        // The words of a provider lie one level deeper.
        let wrong = fault(
            "InvalidParameter",
            87,
            "The parameter is incorrect.",
            "<f:ProviderFault provider=\"Shell cmd plugin\" path=\"%systemroot%\\system32\\winrscmd.dll\">The parameter is incorrect. </f:ProviderFault>",
        );
        assert_eq!(wrong.to_string(), "The parameter is incorrect. (WSMan fault 87)");
        assert!(!wrong.is_no_shell() && !wrong.is_timeout() && !wrong.is_too_large());
    }
}
