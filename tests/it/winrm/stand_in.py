"""A stand-in of Windows' WinRM service, for tests.

The protocol is written after [MS-WSMV]; who logs in, and whether sealed messages are right, is judged by pyspnego, which
knows nothing of forge. That the stand-in itself speaks the protocol is proved by the independent clients pywinrm and
pypsrp (`strangers.py`). What it can't be is a Windows: `powershell.exe` is played by this file. Of forge's own programs it
carries out what they stand for, and a script in them is run by /bin/sh.

    stand_in.py SETTINGS.json      prints its port, and serves until its standard input ends
"""

import base64
import hashlib
import json
import os
import re
import ssl
import struct
import subprocess
import sys
import threading
import uuid
import xml.etree.ElementTree as ET
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

import spnego

SETTINGS = json.load(open(sys.argv[1]))
SHELL_NS = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL_NS,
}
BOUNDARY = b"--Encrypted Boundary"
OCTETS = b"\tContent-Type: application/octet-stream\r\n"
LOCK = threading.Lock()
SHELLS = {}
BOOT = [1000]


def record(**what):
    with LOCK, open(SETTINGS["record"], "a") as file:
        file.write(json.dumps(what) + "\n")


class Fault(Exception):
    def __init__(self, subcode, code, message):
        super().__init__(message)
        self.subcode, self.code, self.message = subcode, code, message


class Command:
    """A command, run by a thread; output is taken away by whoever asks."""

    def __init__(self, line, piped):
        self.line, self.stdin, self.fed, self.piped = line, b"", threading.Event(), piped
        self.news, self.out, self.exit = threading.Condition(), [], None
        self.process = None
        threading.Thread(target=self.run, daemon=True).start()

    def say(self, stream, data):
        with self.news:
            if data:
                self.out.append((stream, data))
            self.news.notify_all()

    def end(self, code):
        with self.news:
            self.exit = code
            self.news.notify_all()

    def run(self):
        try:
            self.end(self.act())
        except Exception as error:  # the stand-in's own fault: told, not hidden
            self.say("stderr", f"stand-in: {error!r}\n".encode())
            self.end(251)

    def act(self):
        encoded = re.search(r"-encodedcommand (\S+)", self.line, re.I)
        if not encoded:
            return self.sh(self.line, {})
        program = base64.b64decode(encoded.group(1)).decode("utf-16-le")
        if "$input" in program:
            if not self.fed.wait(60):
                raise TimeoutError("the end of the input did not come")
        if "[ScriptBlock]::Create" in program and "$input" in program:
            program = base64.b64decode("".join(self.stdin.decode().split())).decode()
        programs = SETTINGS["record"] + ".programs"
        os.makedirs(programs, exist_ok=True)
        with open(os.path.join(programs, f"{uuid.uuid4()}.ps1"), "w") as file:
            file.write(program)
        kind = re.search(r"^# forge: (\w+)", program, re.M)
        record(kind=kind.group(1) if kind else "other", line=self.line[:90], stdin=len(self.stdin))
        if not kind:
            return self.sh(program, {})
        return getattr(self, kind.group(1))(program)

    def sh(self, script, env):
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, **env}, start_new_session=True)

        def pump(stream, name):
            while data := os.read(stream.fileno(), 32768):
                self.say(name, data)

        threads = [threading.Thread(target=pump, args=pair)
                   for pair in ((self.process.stdout, "stdout"), (self.process.stderr, "stderr"))]
        [thread.start() for thread in threads]
        code = self.process.wait()
        [thread.join() for thread in threads]
        return code & 0xFFFFFFFF

    def tell(self, text):
        self.say("stdout", (text + "\r\n").encode())

    def path(self, program):
        coded = re.search(r"FromBase64String\('([^']*)'\)", program).group(1)
        name = base64.b64decode(coded).decode()
        return os.path.join(SETTINGS["root"], name.replace("\\", "/").replace("C:/", ""))

    def put(self, program):
        content = b"".join(base64.b64decode(line) for line in self.stdin.split())
        if SETTINGS.get("damage"):
            content = content[:-1]
        total = hashlib.sha256(content).hexdigest().upper()
        if f"-ne '{total}'" not in program:
            self.say("stderr", f"the checksum differs: {total}\r\n".encode())
            return 1
        os.makedirs(os.path.dirname(self.path(program)), exist_ok=True)
        with open(self.path(program), "wb") as file:
            file.write(content)
        self.tell("forge-put " + total)
        return 0

    def get(self, program):
        try:
            content = open(self.path(program), "rb").read()
        except OSError as error:
            self.say("stderr", f"{error.strerror}\r\n".encode())
            return 1
        limit = int(re.search(r"-gt (\d+)\)", program).group(1))
        if len(content) > limit:
            self.say("stderr", f"it is larger than {limit} bytes\r\n".encode())
            return 1
        for at in range(0, len(content), 49152):
            self.tell(base64.b64encode(content[at:at + 49152]).decode())
        self.tell("forge-get " + hashlib.sha256(content).hexdigest().upper())
        return 0

    def boot(self, _program):
        self.tell(f"boot {BOOT[0]}")
        return 0

    def script(self, program):
        nonce = re.search(r"\$nonce = '([^']+)'", program).group(1)
        plain = [base64.b64decode(text).decode() for text in re.findall(r"\(Plain '([^']*)'\)", program)]
        elevated = re.search(r"if \('(\w+)' -eq 'yes'\)", program).group(1)
        script, runner = plain
        env = {name: base64.b64decode(value).decode()
               for name, value in re.findall(r"^Set-ForgeVariable '(\w+)' '([^']*)'", runner, re.M)}
        record(script=script, env=env, elevated=elevated, runner=runner)
        played = next((one for one in SETTINGS.get("answers", []) if one["match"] in script and "used" not in one), None)
        # What the script gives to a task that outlives it is PowerShell too.
        inner = [base64.b64decode(text).decode() for text in re.findall(r"FromBase64String\('([^']{200,})'\)", script)]
        inner = [text for text in inner if not text.startswith("<")]
        for text in (runner, *([script, *inner] if played else [])):
            with open(os.path.join(SETTINGS["record"] + ".programs", f"{uuid.uuid4()}.ps1"), "w") as file:
                file.write(text)
        if played:
            # What this stand-in can't do is answered as a test says, once.
            played["used"] = True
            self.tell(f"{nonce} begin {BOOT[0]} C:\\Temp\\forge-x")
            [self.tell(line) for line in played["say"]]
            self.tell(f"{nonce} exit {played['exit']}")
            return 0
        if "shutdown.exe /r" in script:
            self.tell(f"{nonce} begin {BOOT[0]} C:\\Temp\\forge-x")
            self.tell(f"{nonce} exit 0")
            threading.Timer(0.5, reboot).start()
            return 0
        self.tell(f"{nonce} begin {BOOT[0]} C:\\Temp\\forge-x")
        code = self.sh(script, env)
        # What kills the whole session says nothing more.
        if code == 0xFFFFFFF7:
            return code
        self.tell(f"{nonce} exit {code}")
        return 0


def reboot():
    """Everything that was open is gone, and a while later another boot answers."""
    with LOCK:
        SHELLS.clear()
        BOOT[0] += 1


def text_of(root, path):
    found = root.find(path, NS)
    return "" if found is None else (found.text or "")


def stream(name, command, data):
    return (f'<rsp:Stream Name="{name}" CommandId="{command}">'
            f"{base64.b64encode(data).decode()}</rsp:Stream>")


def answer(root):
    """The body of the answer to an envelope."""
    action = text_of(root, "s:Header/a:Action").rsplit("/", 1)[1]
    shell_id = ""
    for selector in root.iterfind("s:Header/w:SelectorSet/w:Selector", NS):
        if selector.get("Name") == "ShellId":
            shell_id = selector.text
    body = root.find("s:Body", NS)
    if action == "Create":
        shell_id = str(uuid.uuid4()).upper()
        with LOCK:
            SHELLS[shell_id] = {}
        record(asked="Create", shells=len(SHELLS))
        return action, (
            '<x:ResourceCreated xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer">'
            "<a:Address>http://127.0.0.1/wsman</a:Address><a:ReferenceParameters>"
            f"<w:ResourceURI>{SHELL_NS}/cmd</w:ResourceURI><w:SelectorSet>"
            f'<w:Selector Name="ShellId">{shell_id}</w:Selector></w:SelectorSet></a:ReferenceParameters>'
            f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell_id}</rsp:ShellId></rsp:Shell>")
    with LOCK:
        shell = SHELLS.get(shell_id)
    if shell is None:
        raise Fault("w:InvalidSelectors", 2150858843,
                    "The request for the Windows Remote Shell with ShellId failed because the shell was not found.")
    record(asked=action)
    if action == "Delete":
        with LOCK:
            SHELLS.pop(shell_id, None)
        for command in shell.values():
            if command.process and command.process.poll() is None:
                os.killpg(command.process.pid, 15)
                record(ended=command.line[:90])
        return action, ""
    if action == "Command":
        line = text_of(body, "rsp:CommandLine/rsp:Command")
        more = [each.text or "" for each in body.iterfind("rsp:CommandLine/rsp:Arguments", NS)]
        command_id = str(uuid.uuid4()).upper()
        options = {each.get("Name"): each.text for each in root.iterfind("s:Header/w:OptionSet/w:Option", NS)}
        # [MS-WSMV]: true is a console, which knows no end of its input.
        piped = options.get("WINRS_CONSOLEMODE_STDIN", "TRUE").upper() == "FALSE"
        shell[command_id] = Command(" ".join([line, *more]), piped)
        return action, f"<rsp:CommandResponse><rsp:CommandId>{command_id}</rsp:CommandId></rsp:CommandResponse>"
    if action == "Send":
        piece = body.find("rsp:Send/rsp:Stream", NS)
        command = shell[piece.get("CommandId")]
        command.stdin += base64.b64decode(piece.text or "")
        if command.piped and piece.get("End") in ("true", "1"):
            command.fed.set()
        if SETTINGS.get("slow_to_read"):
            raise Fault("w:TimedOut", 2150858793, "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.")
        return action, "<rsp:SendResponse/>"
    if action == "Signal":
        command = shell[body.find("rsp:Signal", NS).get("CommandId")]
        if command.process and command.process.poll() is None:
            os.killpg(command.process.pid, 15)
            record(ended=command.line[:90])
        return action, "<rsp:SignalResponse/>"
    wanted = body.find("rsp:Receive/rsp:DesiredStream", NS)
    command_id = wanted.get("CommandId")
    command = shell[command_id]
    with command.news:
        if not command.out and command.exit is None:
            command.news.wait(SETTINGS.get("poll", 20))
        taken, size = [], 0
        while command.out and size < 90000:
            taken.append(command.out.pop(0))
            size += len(taken[-1][1])
        over = command.exit is not None and not command.out
    with LOCK:
        gone = shell_id not in SHELLS
    if gone:
        raise Fault("w:InvalidSelectors", 2150858843, "The shell was not found on the server.")
    if not taken and not over:
        raise Fault("w:TimedOut", 2150858793, "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.")
    streams = "".join(stream(name, command_id, data) for name, data in taken)
    state = (f'<rsp:CommandState CommandId="{command_id}" State="{SHELL_NS}/CommandState/Done">'
             f"<rsp:ExitCode>{command.exit}</rsp:ExitCode></rsp:CommandState>" if over else
             f'<rsp:CommandState CommandId="{command_id}" State="{SHELL_NS}/CommandState/Running"/>')
    return action, f"<rsp:ReceiveResponse>{streams}{state}</rsp:ReceiveResponse>"


def fault_body(fault):
    return (
        "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>"
        f'{fault.subcode}</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-US">{escape(fault.message)}'
        "</s:Text></s:Reason><s:Detail>"
        f'<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="{fault.code}" '
        f'Machine="stand-in"><f:Message>{escape(fault.message)}</f:Message></f:WSManFault></s:Detail></s:Fault>')


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    context = None  # one of each connection, as NTLM has it
    ready = False

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", kind="application/soap+xml;charset=UTF-8", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self):
        names = {"ntlm": ["Negotiate"], "ntlm-only": ["NTLM"], "basic": ['Basic realm="WSMAN"']}
        self.reply(401, headers=[("WWW-Authenticate", name) for way in SETTINGS["auth"] for name in names[way]])

    def logged_in(self):
        """Whether the one who asks is known; answers itself when not yet."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic" and "basic" in SETTINGS["auth"]:
            right = base64.b64encode(f"{SETTINGS['user']}:{SETTINGS['password']}".encode()).decode()
            if token == right:
                return True
            self.refuse()
            return False
        wanted = {"Negotiate": "ntlm", "NTLM": "ntlm-only"}.get(scheme)
        if wanted in SETTINGS["auth"]:
            data = base64.b64decode(token)
            if data[8:12] == struct.pack("<I", 1):
                self.context, self.ready = spnego.server(protocol="ntlm"), False
                challenge = base64.b64encode(self.context.step(data)).decode()
                self.reply(401, headers=[("WWW-Authenticate", f"{scheme} {challenge}")])
                return False
            try:
                self.context.step(data)
            except Exception as error:
                record(refused=str(error))
                self.context = None
                self.refuse()
                return False
            record(user=self.context.client_principal)
            self.ready = True
            return True
        if self.ready:
            return True
        self.refuse()
        return False

    def do_POST(self):
        if "Content-Length" not in self.headers:
            # As HTTP.sys does.
            self.close_connection = True
            self.reply(411)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.logged_in():
            return
        kind = self.headers.get("Content-Type", "")
        sealed = kind.startswith("multipart/encrypted")
        if not body:
            self.reply(200)
            return
        if sealed:
            # Judged by pyspnego: a wrong signature or key is an exception here.
            payload = body.split(OCTETS, 1)[1].removesuffix(BOUNDARY + b"--\r\n")
            size = struct.unpack("<I", payload[:4])[0]
            plain = self.context.unwrap_winrm(payload[4:4 + size], payload[4 + size:])
            told = int(re.search(rb"Length=(\d+)", body).group(1))
            assert told == len(plain), (told, len(plain))
        elif SETTINGS.get("sealed_only"):
            record(plain=True)
            self.reply(500, b"")
            return
        else:
            plain = body
        record(bytes=len(plain), sealed=sealed)
        root = ET.fromstring(plain)
        status = 200
        try:
            limit = SETTINGS.get("max_envelope")
            if limit and len(plain) > limit:
                raise Fault("w:EncodingLimit", 2150859174, "The request exceeds MaxEnvelopeSize.")
            action, inner = answer(root)
        except Fault as fault:
            status, action, inner = 500, "fault", fault_body(fault)
        relates = text_of(root, "s:Header/a:MessageID")
        names = " ".join(f'xmlns:{name}="{url}"' for name, url in NS.items())
        text = (f"<s:Envelope {names}><s:Header><a:Action>{action}Response</a:Action>"
                f"<a:MessageID>uuid:{uuid.uuid4()}</a:MessageID><a:RelatesTo>{relates}</a:RelatesTo></s:Header>"
                f"<s:Body>{inner}</s:Body></s:Envelope>").encode()
        if not sealed:
            self.reply(status, text)
            return
        wrapped = self.context.wrap_winrm(text)
        protocol = b"application/HTTP-SPNEGO-session-encrypted"
        out = b"\r\n".join([
            BOUNDARY, b"\tContent-Type: " + protocol,
            b"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d" % len(text),
            BOUNDARY]) + b"\r\n" + OCTETS + struct.pack("<I", len(wrapped.header)) + wrapped.header + wrapped.data
        self.reply(status, out + BOUNDARY + b"--\r\n",
                   f'multipart/encrypted;protocol="{protocol.decode()}";boundary="Encrypted Boundary"')


def main():
    domain, _, user = SETTINGS["user"].rpartition("\\")
    users = SETTINGS["record"] + ".users"
    with open(users, "w") as file:
        file.write(f"{domain}:{user}:{SETTINGS['password']}\n")
    os.environ["NTLM_USER_FILE"] = users
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if SETTINGS.get("cert"):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(SETTINGS["cert"], SETTINGS["key"])
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # A test that dies closes this, and nobody is left behind.
    sys.stdin.read()


main()
