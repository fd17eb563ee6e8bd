use proptest::prelude::*;

use super::*;

/// What a server says in a handshake without security, up to and with ServerInit of 16x8 pixels.
fn greeting(version: &[u8; 12]) -> Vec<u8> {
    let mut bytes = version.to_vec();
    match version {
        b"RFB 003.003\n" => bytes.extend_from_slice(&[0, 0, 0, 1]),
        b"RFB 003.007\n" => bytes.extend_from_slice(&[2, 16, 1]),
        _ => bytes.extend_from_slice(&[2, 1, 19, 0, 0, 0, 0]),
    }
    bytes.extend_from_slice(&[0, 16, 0, 8]);
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&[0, 0, 0, 4]);
    bytes.extend_from_slice(b"QEMU");
    bytes
}

fn ready() -> RfbClient {
    let mut client = RfbClient::new(None).unwrap();
    client.receive(&greeting(b"RFB 003.008\n")).unwrap();
    client.take_output();
    client
}

fn update(rects: &[(&[u16; 4], i32, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend_from_slice(&(rects.len() as u16).to_be_bytes());
    for (place, encoding, payload) in rects {
        for number in *place {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&encoding.to_be_bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

#[test]
fn every_version_shakes_hands_and_asks_for_the_whole_picture() {
    let versions = [
        (b"RFB 003.003\n", "RFB 003.003\n", 1),
        (b"RFB 003.005\n", "RFB 003.003\n", 1),
        (b"RFB 003.007\n", "RFB 003.007\n", 2),
        (b"RFB 003.008\n", "RFB 003.008\n", 2),
        (b"RFB 003.889\n", "RFB 003.008\n", 2),
        (b"RFB 004.001\n", "RFB 003.008\n", 2),
    ];
    for (version, answer, short) in versions {
        let mut client = RfbClient::new(None).unwrap();
        let mut bytes = greeting(version);
        if version == b"RFB 003.005\n" {
            bytes = greeting(b"RFB 003.003\n");
            bytes[..12].copy_from_slice(version);
        }
        let events = client.receive(&bytes).unwrap();
        assert_eq!(events, [Event::Ready { name: "QEMU".to_owned() }], "{answer}");
        let sent = client.take_output();
        assert!(sent.starts_with(answer.as_bytes()));
        assert_eq!(sent[12..12 + short], [1; 2][..short], "security and shared flag");
        assert!(sent.ends_with(&[3, 0, 0, 0, 0, 0, 0, 16, 0, 8]), "the last is a full update request");
        assert_eq!((client.frame().width(), client.frame().height()), (16, 8));
    }
}

#[test]
fn a_password_is_answered_by_des_and_a_refusal_is_quoted() {
    let mut client = RfbClient::new(Some("password")).unwrap();
    let mut bytes = b"RFB 003.008\n".to_vec();
    bytes.extend_from_slice(&[2, 1, 2]);
    bytes.extend(0..16);
    client.receive(&bytes).unwrap();
    let sent = client.take_output();
    assert_eq!(sent.len(), 12 + 1 + 16);
    assert_eq!(sent[12], 2, "with a password VncAuth is preferred");
    let error = client.receive(b"\0\0\0\x01\0\0\0\x0cwrong ticket").unwrap_err();
    assert_eq!(error.to_string(), "the display refused the connection: wrong ticket");
    assert!(client.receive(b"x").is_err(), "after an error it stays in error");
}

#[test]
fn older_versions_take_a_password_too_and_refuse_it_without_a_reason() {
    let challenge: Vec<u8> = (0..16).collect();
    // 3.3 names the one type that it wants, 3.7 has a list to choose from.
    for (version, security, chosen) in
        [(b"RFB 003.003\n", &[0, 0, 0, 2][..], &[][..]), (b"RFB 003.007\n", &[2, 16, 2][..], &[2][..])]
    {
        let open = [&version[..], security, &challenge].concat();
        let mut client = RfbClient::new(Some("password")).unwrap();
        client.receive(&open).unwrap();
        let sent = client.take_output();
        assert_eq!(sent[..12], version[..]);
        assert_eq!(sent[12..12 + chosen.len()], *chosen);
        assert_eq!(sent[12 + chosen.len()..], auth::respond("password", challenge[..].try_into().unwrap()));
        let error = client.receive(&[0, 0, 0, 1]).unwrap_err();
        assert_eq!(error.to_string(), "the display refused the connection: security result 1");

        let mut client = RfbClient::new(Some("password")).unwrap();
        client.receive(&open).unwrap();
        client.take_output();
        let init = [&[0, 0, 0, 0][..], &[0, 16, 0, 8], &[0; 16], &[0, 0, 0, 4], b"QEMU"].concat();
        assert_eq!(client.receive(&init).unwrap(), [Event::Ready { name: "QEMU".to_owned() }]);

        let mut client = RfbClient::new(None).unwrap();
        let error = client
            .receive(&open[..12 + security.len()])
            .map(|_| ())
            .and_then(|()| client.receive(&challenge).map(|_| ()));
        assert_eq!(error.unwrap_err().to_string(), "the display asks for a password and none was given");
    }
    let mut client = RfbClient::new(None).unwrap();
    let error = client.receive(b"RFB 003.003\n\0\0\0\0\0\0\0\x04busy").unwrap_err();
    assert_eq!(error.to_string(), "the display refused the connection: busy");
}

#[test]
fn no_length_is_believed_that_no_honest_display_has() {
    let most = u32::MAX.to_be_bytes();
    let init = |length: u32| {
        let mut bytes = greeting(b"RFB 003.008\n");
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let handshakes: [(Vec<u8>, &str); 3] = [
        ([&b"RFB 003.008\n\0"[..], &most].concat(), "the display announced a reason of 4294967295 bytes"),
        (
            [&b"RFB 003.008\n\x01\x01\0\0\0\x01"[..], &65_537_u32.to_be_bytes()].concat(),
            "the display announced a reason of 65537 bytes",
        ),
        (init(65_537), "the display announced a name of 65537 bytes"),
    ];
    for (bytes, message) in handshakes {
        let mut client = RfbClient::new(None).unwrap();
        assert_eq!(client.receive(&bytes).unwrap_err().to_string(), message);
    }
    let clipboard = |length: i32| [&[3, 0, 0, 0][..], &length.to_be_bytes()].concat();
    let messages: [(Vec<u8>, &str); 5] = [
        (update(&[(&[0; 4], -307, &most)]), "the display announced a name of 4294967295 bytes"),
        (clipboard(67_108_865), "the display announced a clipboard of 67108865 bytes"),
        // A negative length announces the extended clipboard.
        (clipboard(-67_108_865), "the display announced a clipboard of 67108865 bytes"),
        (clipboard(i32::MIN), "the display announced a clipboard of 2147483648 bytes"),
        (
            update(&[(&[0, 0, 0xffff, 0xffff], -239, &[])]),
            "the display announced a cursor of 17716207620 bytes",
        ),
    ];
    for (bytes, message) in messages {
        assert_eq!(ready().receive(&bytes).unwrap_err().to_string(), message);
    }
    // What is long, but may be, is passed over without being kept.
    let mut client = ready();
    client.receive(&clipboard(-1_000_000)).unwrap();
    for _ in 0..1000 {
        client.receive(&[7; 1000]).unwrap();
    }
    assert_eq!(client.receive(&[2]).unwrap(), [Event::Bell]);
}

#[test]
fn what_is_no_display_is_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the peer does not speak RFB: it began with \"SSH-2.0-Open\""),
        (b"HTT", "the peer does not speak RFB: it began with \"HTT\""),
        (b"RFB 002.000\n", "the peer does not speak RFB: it began with \"RFB 002.000\\n\""),
        (
            b"RFB 003.008\n\x01\x13",
            "the display offers security types [19]; supported are 1 (none) and 2 (password)",
        ),
        (b"RFB 003.008\n\x01\x02", "the display asks for a password and none was given"),
        (b"RFB 003.008\n\0\0\0\0\x04busy", "the display refused the connection: busy"),
    ];
    for (bytes, message) in cases {
        let mut client = RfbClient::new(None).unwrap();
        assert_eq!(client.receive(bytes).unwrap_err().to_string(), message);
    }
}

#[test]
fn raw_and_copied_pixels_land_in_the_frame() {
    let mut client = ready();
    let bytes =
        update(&[(&[2, 1, 2, 1], 0, &[1, 2, 3, 99, 4, 5, 6, 99]), (&[10, 7, 2, 1], 1, &[0, 2, 0, 1])]);
    let events = client.receive(&bytes).unwrap();
    assert_eq!(client.frame().row(2, 1, 2), [0x0003_0201, 0x0006_0504]);
    assert_eq!(client.frame().row(10, 7, 2), [0x0003_0201, 0x0006_0504]);
    assert_eq!(events.len(), 1);
    assert_eq!(client.take_output(), [3, 1, 0, 0, 0, 0, 0, 16, 0, 8], "an incremental request follows");
}

#[test]
fn a_new_size_is_told_and_the_whole_picture_asked_for() {
    let mut client = ready();
    let extended: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 32, 0, 4, 0, 0, 0, 0];
    for (encoding, payload, width) in [(-223, &[][..], 64), (-308, extended, 32)] {
        let events = client.receive(&update(&[(&[0, 0, width, 4], encoding, payload)])).unwrap();
        assert_eq!(events[0], Event::Resized { width: width.into(), height: 4 });
        assert_eq!(client.take_output(), [3, 0, 0, 0, 0, 0, 0, width as u8, 0, 4]);
    }
    let refused = update(&[(&[1, 3, 99, 99], -308, extended)]);
    client.receive(&refused).unwrap();
    assert_eq!(client.frame().width(), 32, "a refused request changes nothing");
}

#[test]
fn last_rect_extended_keys_and_unasked_pseudo_encodings_are_understood() {
    let mut client = ready();
    client.key(true, 0x61, 0x1e);
    assert_eq!(client.take_output(), [4, 1, 0, 0, 0, 0, 0, 0x61]);
    let mut bytes = update(&[
        (&[0, 0, 0, 0], -258, &[]),
        (&[0, 0, 2, 1], -239, &[0; 9]),
        (&[0, 0, 0, 0], -261, &[7]),
        (&[0, 0, 0, 0], -307, b"\0\0\0\x02ab"),
        (&[0, 0, 0, 0], -224, &[]),
    ]);
    bytes[2..4].copy_from_slice(&[0xff, 0xff]);
    bytes.push(2);
    bytes.extend_from_slice(b"\x03\0\0\0\0\0\0\x02hi");
    let events = client.receive(&bytes).unwrap();
    let leds = Leds { scroll: true, num: true, caps: true };
    assert_eq!(events, [Event::ExtendedKeys, Event::Leds(leds), Event::Updated(None), Event::Bell]);
    assert_eq!(client.leds(), Some(leds));
    assert!(!client.has_drawn(), "what tells of keys and lights is no picture");
    client.take_output();
    client.key(false, 0xff52, 0xc8);
    assert_eq!(client.take_output(), [255, 0, 0, 0, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8]);
}

#[test]
fn what_lies_outside_or_was_not_asked_for_is_an_error() {
    let cases: [(Vec<u8>, &str); 6] = [
        (update(&[(&[15, 0, 2, 1], 0, &[])]), "an update at 15,0 of 2x1 lies outside the screen"),
        (update(&[(&[0, 0, 2, 1], 1, &[0, 15, 0, 0])]), "an update at 15,0 of 2x1 lies outside the screen"),
        (update(&[(&[0, 0, 2, 1], 7, &[])]), "the display sent encoding 7, which was not asked for"),
        (update(&[(&[0, 0, 0xffff, 0xffff], -223, &[])]), "the display announced an implausible screen"),
        (vec![99], "the display sent a message of unknown type 99"),
        (
            update(&[(&[0, 0, 2, 1], 16, &[0xff; 4])]),
            "the display announced a compressed update of 4294967295 bytes",
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(ready().receive(&bytes).unwrap_err().to_string(), message);
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let encodings =
        prop::sample::select(vec![0, 1, 16, -223, -224, -239, -240, -257, -258, -261, -307, -308, 5]);
    let rect = (prop::array::uniform4(0_u16..20), encodings, prop::collection::vec(any::<u8>(), 0..64));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(rect, 0..4).prop_map(|rects| {
            let rects: Vec<_> =
                rects.iter().map(|(place, number, data)| (place, *number, &data[..])).collect();
            update(&rects)
        }),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), password: bool) {
        let mut client = RfbClient::new(password.then_some("secret")).unwrap();
        let _ = client.receive(&bytes);
    }

    #[test]
    fn no_messages_make_it_panic_and_how_they_are_cut_changes_nothing(
        messages in prop::collection::vec(message(), 1..8),
        cut in 1_usize..40,
    ) {
        let mut bytes = greeting(b"RFB 003.008\n");
        bytes.extend(messages.concat());
        let mut whole = RfbClient::new(None).unwrap();
        let at_once = whole.receive(&bytes).map_err(|error| error.to_string());
        let mut pieces = RfbClient::new(None).unwrap();
        let mut events = Vec::new();
        let mut failure = None;
        for piece in bytes.chunks(cut) {
            match pieces.receive(piece) {
                Ok(more) => events.extend(more),
                Err(error) => {
                    failure = Some(error.to_string());
                    break;
                }
            }
        }
        match at_once {
            Ok(expected) => prop_assert_eq!((expected, None), (events, failure)),
            Err(error) => prop_assert_eq!(Some(error), failure),
        }
        prop_assert_eq!(whole.frame(), pieces.frame());
    }
}
