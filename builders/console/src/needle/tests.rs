use proptest::prelude::*;

use super::*;

/// A screen with soft shapes and some noise, as a desktop has them.
fn desktop(width: u32, height: u32, seed: u32) -> Frame {
    let mut frame = Frame::new(width, height).unwrap();
    let mut noise = seed;
    for y in 0..height {
        let row: Vec<u32> = (0..width)
            .map(|x| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let shape = ((x / 17 * 31 + y / 13 * 57 + seed) % 7 * 30) + (noise >> 29);
                shape << 16 | (x / 6 % 256) << 8 | (y / 4 % 256)
            })
            .collect();
        frame.put_row(0, y, &row);
    }
    frame
}

fn cut(frame: &Frame, rect: Rect) -> Frame {
    let mut piece = Frame::new(rect.width, rect.height).unwrap();
    for y in 0..rect.height {
        piece.put_row(0, y, frame.row(rect.x, rect.y + y, rect.width));
    }
    piece
}

#[test]
fn a_needle_is_found_wherever_it_is_and_not_where_it_is_not() {
    let screen = desktop(1280, 800, 7);
    for (x, y) in [(0, 0), (333, 217), (1160, 760), (1180, 3)] {
        let rect = Rect { x, y, width: 100, height: 40 };
        let png = cut(&screen, rect).png().unwrap();
        let needle = Needle::from_png(&png, &[]).unwrap();
        let found = needle.find(&screen, DEFAULT_TOLERANCE).unwrap();
        assert_eq!(found.place, rect);
        assert!(found.difference < 0.001);
    }
    let other = desktop(1280, 800, 4_000_000);
    let text = {
        let mut frame = Frame::new(120, 40).unwrap();
        for y in 10..30 {
            frame.put_row(10, y, &[if y % 3 == 0 { 0x00ff_ffff } else { 0 }; 90]);
        }
        frame
    };
    let needle = Needle::from_frame(&text, &[]).unwrap();
    assert_eq!(needle.find(&other, DEFAULT_TOLERANCE), None);
    assert_eq!(needle.find(&Frame::new(20, 20).unwrap(), DEFAULT_TOLERANCE), None, "larger than the screen");
}

#[test]
fn only_the_areas_count_and_they_keep_their_places() {
    let screen = desktop(640, 480, 9);
    let mut picture = cut(&screen, Rect { x: 100, y: 100, width: 200, height: 120 });
    // A clock between the areas goes on.
    for y in 40..60 {
        picture.put_row(0, y, &[0x00ff_00ff; 200]);
    }
    let areas = [Rect { x: 10, y: 5, width: 80, height: 30 }, Rect { x: 100, y: 70, width: 60, height: 40 }];
    let needle = Needle::from_frame(&picture, &areas).unwrap();
    let found = needle.find(&screen, DEFAULT_TOLERANCE).unwrap();
    assert_eq!((found.place.x, found.place.y), (110, 105));
    assert_eq!(Needle::from_frame(&picture, &[]).unwrap().find(&screen, DEFAULT_TOLERANCE), None);
    let outside = Rect { x: 190, y: 0, width: 20, height: 10 };
    assert!(matches!(Needle::from_frame(&picture, &[outside]), Err(NeedleError::Area(_))));
}

#[test]
fn an_area_with_nothing_in_it_is_no_needle() {
    let mut frame = Frame::new(200, 200).unwrap();
    // A blank button, a hairline across it, and the softest of shades.
    frame.put_row(0, 30, &[0x00ff_ffff; 200]);
    for y in 40..60 {
        let row: Vec<u32> = (0..200).map(|x| 0x0001_0101 * (x / 40)).collect();
        frame.put_row(0, y, &row);
    }
    for (y, height) in [(0, 20), (40, 20), (0, 200)] {
        let area = Rect { x: 0, y, width: 200, height };
        let error = Needle::from_frame(&frame, &[area]).unwrap_err();
        assert!(matches!(error, NeedleError::Flat(flat) if flat == area), "{error}");
        assert!(
            error.to_string().starts_with(&format!("the area 200x{height} at 0,{y} of the needle has")),
            "{error}"
        );
    }
    let around = Rect { x: 0, y: 25, width: 200, height: 10 };
    assert!(Needle::from_frame(&frame, &[around]).is_ok(), "a line in a narrow area tells");
}

#[test]
fn small_differences_are_tolerated() {
    let screen = desktop(640, 480, 3);
    let rect = Rect { x: 77, y: 55, width: 90, height: 33 };
    let mut softened = cut(&screen, rect);
    for y in 0..33 {
        let row: Vec<u32> =
            softened.row(0, y, 90).iter().map(|pixel| (pixel & 0x00f8_f8f8) | 0x0004_0404).collect();
        softened.put_row(0, y, &row);
    }
    let found = Needle::from_frame(&softened, &[]).unwrap().find(&screen, DEFAULT_TOLERANCE).unwrap();
    assert_eq!(found.place, rect);
    assert!(found.difference > 0.0);
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header: bool) {
        let mut file = if header { b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec() } else { Vec::new() };
        file.extend(bytes);
        let _ = Needle::from_png(&file, &[]);
    }
}
