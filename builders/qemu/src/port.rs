//! A port of 127.0.0.1 that is forge's from before QEMU starts until the VM is gone.
//!
//! The socket is bound and never listens, both with `SO_REUSEADDR`: Linux then lets QEMU (whose user network sets the
//! same) bind and listen on it, gives it to nobody who asks for any free port, and refuses it to whoever binds it
//! without that option. So there is no moment in which a chosen port is free, a VM that is started anew keeps its
//! port, and nothing stands between client and QEMU.

use std::io;
use std::net::Ipv4Addr;

use forge_machine::PortError;
use tokio::net::TcpSocket;

/// A port that is held.
#[derive(Debug)]
pub(crate) struct HeldPort {
    number: u16,
    _socket: TcpSocket,
}

impl HeldPort {
    /// Takes a free port, of a range (both ends included) if one is given.
    pub(crate) fn take(range: Option<(u16, u16)>) -> Result<Self, PortError> {
        let what = "taking a port of 127.0.0.1 for the guest's SSH";
        let Some((first, last)) = range else {
            return Self::bind(0).map_err(|error| PortError::broken(what, error));
        };
        let mut seen = None;
        for number in first..=last {
            match Self::bind(number) {
                Ok(port) => return Ok(port),
                Err(error) => seen = Some(error),
            }
        }
        let seen = seen.map_or_else(|| "the range is empty".to_owned(), |error| error.to_string());
        Err(PortError::failed(
            what,
            format!("none of the ports {first}-{last} is free: {seen}; widen `ssh-ports` of the target"),
        ))
    }

    fn bind(number: u16) -> io::Result<Self> {
        if number != 0 {
            // Whoever listens with the option set as well would not be noticed by binding alone.
            drop(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, number))?);
        }
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, number).into())?;
        Ok(Self { number: socket.local_addr()?.port(), _socket: socket })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_held_port_is_refused_to_others_and_free_again_when_it_is_let_go() {
        let held = HeldPort::take(None).expect("a port");
        let address = (Ipv4Addr::LOCALHOST, held.number());
        let plain = TcpSocket::new_v4().expect("a socket");
        let error = plain.bind(address.into()).expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let range = Some((held.number(), held.number()));
        drop(held);
        let again = HeldPort::take(range).expect("free again");
        assert_eq!(Some((again.number(), again.number())), range);
    }

    #[tokio::test]
    async fn a_range_whose_ports_are_all_taken_is_told_with_its_numbers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let number = listener.local_addr().expect("bound").port();
        let error = HeldPort::take(Some((number, number))).expect_err("taken");
        let text = error.to_string();
        assert!(text.contains(&format!("none of the ports {number}-{number} is free")), "{text}");
        assert!(text.contains("in use"), "{text}");
    }
}
