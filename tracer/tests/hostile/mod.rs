//! Names as somebody would choose who wants to steer the terminal of whoever
//! reads them, and what of them may be seen.
#![allow(dead_code, reason = "each test file uses some of it")]

/// Erases the screen, sets a title, makes it blink, ends the line, and turns the
/// direction of reading; hidden are C1 controls, DEL, zero-width characters, tags
/// and other format characters, a filler that is a letter, a heap of marks.
pub(crate) const NAME: &str = "n\x1b[2J\x1b]0;t\x07\x1b[5m\t\r\nm\u{9b}31m\u{85}\u{7f}\u{202e}\u{2066}\u{200f}\
     \u{61c}\u{200b}\u{200d}\u{feff}\u{ad}\u{2028}\u{fff9}\u{e0041}\u{fe0f}\u{3164}\
     Z\u{335}\u{335}\u{335}\u{335}\u{335}\u{335}";

/// The same in the fifteen bytes of a process's name.
pub(crate) const COMM: &[u8; 16] = b"ev\x1b[2J\xc2\x9b\xe2\x80\xae\xef\xbb\xbf\n\0";

/// As a path or the name of a file may be.
pub(crate) fn file_name() -> String {
    NAME.replace('/', "")
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0xad | 0x34f
                | 0x61c
                | 0x180b..=0x180f
                | 0x200b..=0x200f
                | 0x2028..=0x202e
                | 0x2060..=0x206f
                | 0x3164
                | 0xfe00..=0xfe0f
                | 0xfeff
                | 0xfff0..=0xfffb
                | 0xe0000..=0xe0fff
        )
}

/// What is wrong with an output, where something is: a character that steers a
/// terminal or is not seen, a heap of marks. The newline at the end of a line, and
/// `allowed` sequences, are ours.
pub(crate) fn fault(output: &[u8], allowed: &[&str]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(output) else {
        return Some(format!("not UTF-8: {}", output.escape_ascii()));
    };
    let mut text = text.to_owned();
    for sequence in allowed {
        text = text.replace(sequence, "");
    }
    for line in text.split('\n') {
        if let Some(c) = line.chars().find(|&c| steers(c)) {
            return Some(format!("{c:?} in {line:?}"));
        }
        if line.contains(&"\u{335}".repeat(5)) {
            return Some(format!("a heap of marks in {line:?}"));
        }
    }
    None
}
