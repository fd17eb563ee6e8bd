//! `vncwebsocket` and what leads there: the frames that pveproxy takes, its tickets, and a serial port (vnc-websocket.txt).

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use forge_lab::{ImportVm, Lab, LabConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::{Client, header, read_head};
use super::lab_with;

const VM: &str = "/nodes/pve/qemu/9000";

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A boot sector that writes `>` and then whatever comes from the first serial port back to it.
const SERIAL_ECHO: [u8; 24] = [
    0xb8, 0xe3, 0x00, // mov ax, 00e3h: serial port at 9600 8N1
    0x31, 0xd2, // xor dx, dx
    0xcd, 0x14, // int 14h
    0xb0, b'>', // mov al, '>'
    0xb4, 0x01, // send: mov ah, 1
    0xcd, 0x14, // int 14h
    0xb4, 0x02, // receive: mov ah, 2
    0xcd, 0x14, // int 14h
    0xf6, 0xc4, 0x80, // test ah, 80h: nothing came
    0x75, 0xf7, // jnz receive
    0xeb, 0xf1, // jmp send
];

/// Opens the websocket of a proxy: its head, and the connection with what came after the head.
pub async fn open(
    client: &Client,
    port: &str,
    ticket: &str,
    more: &str,
) -> anyhow::Result<(String, TlsStream<TcpStream>, Vec<u8>)> {
    let ticket: String = ticket.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let more = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{more}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    let request = client.head("GET", &format!("{VM}/vncwebsocket?port={port}&vncticket={ticket}"), &more);
    let mut stream = client.connect().await?;
    stream.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(&mut stream).await?;
    Ok((head, stream, rest))
}

/// Reads one short unmasked frame: its first byte and its data.
async fn any_frame(stream: &mut TlsStream<TcpStream>, rest: &mut Vec<u8>) -> anyhow::Result<(u8, Vec<u8>)> {
    loop {
        if rest.len() >= 2 && rest.len() >= 2 + usize::from(rest[1]) {
            let length = usize::from(rest[1]);
            ensure!(length < 126, "a short frame without a mask");
            let (first, data) = (rest[0], rest[2..2 + length].to_vec());
            rest.drain(..2 + length);
            return Ok((first, data));
        }
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the websocket closed");
        rest.extend(&buffer[..read]);
    }
}

/// Reads one short unmasked binary frame.
pub async fn frame(stream: &mut TlsStream<TcpStream>, rest: &mut Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let (first, data) = any_frame(stream, rest).await?;
    ensure!(first == 0x82, "a whole binary frame");
    Ok(data)
}

/// A frame with a mask, as clients must send them; `first` holds flags and kind.
fn frame_of(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match data.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(data.iter().zip([1u8, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A whole binary frame with a mask.
pub fn masked(data: &[u8]) -> Vec<u8> {
    frame_of(0x82, data)
}

fn text(answer: &Value, key: &str) -> anyhow::Result<String> {
    answer[key].as_str().map(str::to_owned).with_context(|| format!("{key}: {answer}"))
}

/// Opens a proxy and its websocket.
async fn session(
    client: &Client,
    proxy: &str,
    more: &str,
) -> anyhow::Result<(Value, String, TlsStream<TcpStream>, Vec<u8>)> {
    let answer = client.call("POST", &format!("{VM}/{proxy}"), "").await?;
    ensure!(answer.status == 200, "{}", answer.line());
    let data = answer.data();
    let (head, stream, rest) = open(client, &text(&data, "port")?, &text(&data, "ticket")?, more).await?;
    ensure!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    Ok((data, head, stream, rest))
}

/// Whether the other side closes without another frame of data.
async fn closes(mut stream: TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut byte = [0];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut byte)).await.context("it stays open")?;
    ensure!(matches!(read, Ok(0) | Err(_)), "something came: {byte:?}");
    Ok(())
}

async fn lab_with_a_serial_guest(folder: &std::path::Path) -> anyhow::Result<(Lab, Client)> {
    let (lab, client) = lab_with(LabConfig::default()).await?;
    let mut disk = vec![0; 1 << 20];
    disk[..SERIAL_ECHO.len()].copy_from_slice(&SERIAL_ECHO);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(folder.join("disk.raw"), disk)?;
    lab.import_vm(ImportVm {
        vmid: 9000,
        disk: Some(folder.join("disk.raw")),
        memory: 32,
        agent: false,
        extra: [("serial0".to_owned(), "socket".to_owned())].into(),
        ..ImportVm::default()
    })
    .await?;
    assert_eq!(client.done("POST", &format!("{VM}/status/start"), "").await?, "OK");
    Ok((lab, client))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_websocket_takes_the_frames_that_pveproxy_takes_and_no_others() -> anyhow::Result<()> {
    if !std::path::Path::new("/usr/bin/qemu-system-x86_64").exists() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (lab, client) = lab_with_a_serial_guest(folder.path()).await?;

    // No extension is taken, and one of the protocols.
    let more = "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: base64, binary\r\n";
    let (_, head, mut stream, mut rest) = session(&client, "vncproxy", more).await?;
    assert_eq!(header(&head, "sec-websocket-extensions"), None);
    assert_eq!(header(&head, "sec-websocket-protocol").as_deref(), Some("binary"));
    assert_eq!(frame(&mut stream, &mut rest).await?, b"RFB 003.008\n");
    // A ping is answered with its own bytes, a pong is passed over, a close is answered with a close.
    stream.write_all(&frame_of(0x89, b"are you there")).await?;
    assert_eq!(any_frame(&mut stream, &mut rest).await?, (0x8a, b"are you there".to_vec()));
    stream.write_all(&frame_of(0x8a, b"yes")).await?;
    stream.write_all(&frame_of(0x81, b"RFB 003.008\n")).await?;
    let mut types = Vec::new();
    while types.len() < 2 {
        types.extend(frame(&mut stream, &mut rest).await?);
    }
    assert_eq!(types, [1, 2], "a text frame is data as well");
    stream.write_all(&frame_of(0x88, &[0x03, 0xe8])).await?;
    assert_eq!(any_frame(&mut stream, &mut rest).await?, (0x88, vec![0x03, 0xe8]));
    closes(stream).await?;

    // The largest frame that is taken: the VNC server reads the version from its start and finds the rest wrong.
    let mut largest = b"RFB 003.008\n\x02".to_vec();
    largest.resize(128 << 10, 0);
    let (_, _, mut stream, mut rest) = session(&client, "vncproxy", "").await?;
    assert_eq!(frame(&mut stream, &mut rest).await?, b"RFB 003.008\n");
    stream.write_all(&masked(&largest)).await?;
    let mut types = Vec::new();
    while types.len() < 2 {
        types.extend(frame(&mut stream, &mut rest).await?);
    }
    assert_eq!(types[..2], [1, 2], "it has arrived");
    drop(stream);

    let mut unmasked = vec![0x82, 12];
    unmasked.extend(b"RFB 003.008\n");
    let mut too_large = frame_of(0x82, &vec![0; (128 << 10) + 1]);
    // Its head alone is enough.
    too_large.truncate(14);
    for (what, bytes) in [
        ("a part of a message", frame_of(0x02, b"RFB 003.")),
        ("the rest of a message", frame_of(0x80, b"008\n")),
        ("a bit of an extension", frame_of(0xc2, b"RFB 003.008\n")),
        ("an unknown kind", frame_of(0x83, b"RFB 003.008\n")),
        ("no mask", unmasked),
        ("more than 128 KiB", too_large),
    ] {
        let (proxy, _, mut stream, mut rest) = session(&client, "vncproxy", "").await?;
        assert_eq!(frame(&mut stream, &mut rest).await?, b"RFB 003.008\n");
        stream.write_all(&bytes).await?;
        closes(stream).await.with_context(|| what.to_owned())?;
        assert_eq!(client.task_of(&text(&proxy, "upid")?).await?.0, "OK", "{what}");
    }
    lab.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_serial_port_is_a_terminal() -> anyhow::Result<()> {
    if !std::path::Path::new("/usr/bin/qemu-system-x86_64").exists() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (lab, client) = lab_with_a_serial_guest(folder.path()).await?;
    let until_the_guest_said = async |text: &str| {
        let started = Instant::now();
        while lab.serial_log(9000) != text {
            ensure!(started.elapsed() < LIMIT, "the guest said {:?}", lab.serial_log(9000));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    until_the_guest_said(">").await?;
    let (proxy, _, mut stream, mut rest) = session(&client, "termproxy", "").await?;
    let greeting = format!("{}:{}\n", text(&proxy, "user")?, text(&proxy, "ticket")?);
    stream.write_all(&masked(greeting.as_bytes())).await?;
    assert_eq!(frame(&mut stream, &mut rest).await?, b"OK");
    // A size and a sign of life are no bytes for the guest.
    for packet in ["1:80:25:", "2", "0:5:a:b\nc"] {
        stream.write_all(&masked(packet.as_bytes())).await?;
    }
    let mut said = Vec::new();
    while said.len() < 5 {
        said.extend(frame(&mut stream, &mut rest).await?);
    }
    assert_eq!(said, b"a:b\nc");
    until_the_guest_said(">a:b\nc").await?;
    drop(stream);
    assert_eq!(client.task_of(&text(&proxy, "upid")?).await?.0, "OK");

    // Another user, and a ticket that is none, open nothing.
    let ticket = text(&proxy, "ticket")?;
    for greeting in [format!("root@pam:{ticket}\n"), format!("{}:{ticket}x\n", text(&proxy, "user")?)] {
        let (_, _, mut stream, _) = session(&client, "termproxy", "").await?;
        stream.write_all(&masked(greeting.as_bytes())).await?;
        refused(&mut stream).await?;
    }
    // A port that the VM has not.
    let answer = client.call("POST", &format!("{VM}/termproxy"), "serial=serial3").await?.data();
    let (port, ticket) = (text(&answer, "port")?, text(&answer, "ticket")?);
    let (_, mut stream, mut rest) = open(&client, &port, &ticket, "").await?;
    stream.write_all(&masked(format!("{}:{ticket}\n", text(&answer, "user")?).as_bytes())).await?;
    let mut said = Vec::new();
    while said.len() < 4 {
        said.extend(frame(&mut stream, &mut rest).await?);
    }
    said.extend(frame(&mut stream, &mut rest).await.unwrap_or_default());
    assert_eq!(String::from_utf8_lossy(&said), "OKunable to find a serial interface\r\n");
    let wrong = client.call("POST", &format!("{VM}/termproxy"), "serial=serial4").await?;
    assert_eq!(wrong.line(), "400 Parameter verification failed.");
    assert!(wrong.json()["errors"]["serial"].is_string(), "{}", wrong.body);

    // A ticket that is none: with another's signature, and with one that could be nobody's.
    let ticket = text(&client.call("POST", &format!("{VM}/vncproxy"), "").await?.data(), "ticket")?;
    let (head, ..) = open(&client, "5900", &format!("{}AAA=", &ticket[..ticket.len() - 4]), "").await?;
    assert!(head.starts_with("HTTP/1.1 401 permission denied - invalid PVEVNC ticket\r\n"), "{head}");
    let (head, ..) = open(&client, "5900", &format!("{ticket}AAAA"), "").await?;
    assert!(
        head.starts_with(
            "HTTP/1.1 500 Signature longer than key at /usr/share/perl5/PVE/Ticket.pm line 83.\r\n"
        ),
        "{head}"
    );
    lab.stop().await;
    Ok(())
}

/// Whether a session ends without a byte for the client.
async fn refused(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    let mut rest = Vec::new();
    match tokio::time::timeout(LIMIT, any_frame(stream, &mut rest)).await.context("it stays open")? {
        Ok((0x88, _)) | Err(_) => Ok(()),
        Ok(frame) => bail!("something came: {frame:?}"),
    }
}
