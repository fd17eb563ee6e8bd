//! Websocket frames between a client and a VM's VNC server or serial port, with pveproxy's limits: client frames are masked,
//! unfragmented and at most 128 KiB; the server's are binary, unmasked and unfragmented.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Most bytes of a frame, either way.
const FRAME_LIMIT: usize = 128 << 10;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Carries bytes both ways until either side ends or breaks a rule, or, by a fault, until so many bytes have gone to the
/// client.
pub async fn bridge(
    client: impl AsyncRead + AsyncWrite + Send,
    vnc: impl AsyncRead + AsyncWrite + Send,
    limit: Option<u64>,
) {
    let mut left = limit.unwrap_or(u64::MAX);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_vnc, mut to_vnc) = tokio::io::split(vnc);
    let (pongs, mut ponged) = mpsc::channel::<(u8, Vec<u8>)>(16);
    let inwards = async {
        while let Some((opcode, data)) = read_frame(&mut from_client).await {
            let goes_on = match opcode {
                PING => pongs.send((PONG, data)).await.is_ok(),
                PONG => true,
                CLOSE => {
                    // A close is answered by a close; then it is over.
                    let _ = pongs.send((CLOSE, data)).await;
                    false
                }
                TEXT | BINARY => to_vnc.write_all(&data).await.is_ok(),
                _ => false,
            };
            if !goes_on {
                break;
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let sent = tokio::select! {
                read = from_vnc.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => {
                        let _ = write_frame(&mut to_client, CLOSE, &[0x03, 0xe8]).await;
                        break;
                    }
                    Ok(length) => match left.checked_sub(length as u64) {
                        Some(rest) => {
                            left = rest;
                            write_frame(&mut to_client, BINARY, &buffer[..length]).await
                        }
                        None => break,
                    },
                },
                Some((opcode, data)) = ponged.recv() => {
                    let sent = write_frame(&mut to_client, opcode, &data).await;
                    if opcode == CLOSE {
                        break;
                    }
                    sent
                }
            };
            if sent.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::pin!(inwards, outwards);
    tokio::select! {
        () = &mut inwards => {
            // Lets an answered close out.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), &mut outwards).await;
        }
        () = &mut outwards => {}
    }
}

/// Reads one frame; `None` at the end and when a rule is broken.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let (whole, reserved, opcode) = (head[0] & 0x80 != 0, head[0] & 0x70, head[0] & 0x0f);
    let masked = head[1] & 0x80 != 0;
    if !whole || reserved != 0 || !masked {
        return None;
    }
    let length = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await.ok()?),
        127 => usize::try_from(stream.read_u64().await.ok()?).ok()?,
        short => usize::from(short),
    };
    if length > FRAME_LIMIT {
        return None;
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.ok()?;
    let mut data = vec![0; length];
    stream.read_exact(&mut data).await.ok()?;
    data.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((opcode, data))
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), opcode: u8, data: &[u8]) -> std::io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(data.len()) {
        Ok(short) if short < 126 => frame.push(short as u8),
        Ok(medium) => {
            frame.push(126);
            frame.extend(medium.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((data.len() as u64).to_be_bytes());
        }
    }
    frame.extend(data);
    stream.write_all(&frame).await?;
    stream.flush().await
}
