//! Which targets the API takes: those that the document describes, no looser, so that what a client may send is known
//! exactly. Times have a zone: the server's own is nobody's business.

/// Whether `text` has one of the forms of the schema `Target`.
pub(crate) fn is_documented(text: &str) -> bool {
    if let Some((word, value)) = text.split_once(':')
        && word.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return match word {
            "lsn" => value.split_once('/').is_some_and(|(high, low)| is_half(high) && is_half(low)),
            "xid" | "before-xid" => is_xid(value),
            "name" | "backup" => is_label(value),
            _ => false,
        };
    }
    text == "latest" || is_time(text)
}

fn is_half(text: &str) -> bool {
    (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_xid(text: &str) -> bool {
    let digits = (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    // With its epoch the id has more than 32 bits.
    digits && !text.starts_with('0') && text.parse::<u64>().is_ok_and(|xid| xid & u64::from(u32::MAX) > 2)
}

fn is_label(text: &str) -> bool {
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    (1..=63).contains(&text.len()) && printable && !text.ends_with(' ')
}

/// `2026-01-29T14:30:00.5+01:00`, with `T` or a space, up to six digits after the point, `Z` or an offset. Whether that
/// day exists is another question.
pub(crate) fn is_time(text: &str) -> bool {
    let Some((clock, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let fits = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(b, wanted)| match wanted {
                b'd' => b.is_ascii_digit(),
                b'_' => b == b'T' || b == b' ',
                other => b == other,
            })
    };
    let rest = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=6).contains(&digits) {
                return false;
            }
            fraction.get(digits..).unwrap_or_default()
        }
    };
    let offset = rest.strip_prefix(['+', '-']).is_some_and(|offset| fits(offset, "dd:dd"));
    fits(clock, "20dd-dd-dd_dd:dd:dd") && (rest == "Z" || offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documented_targets_are_taken() {
        for good in [
            "latest",
            "2026-01-29T14:30:00Z",
            "2026-01-29 14:30:00.5+01:00",
            "lsn:0/3000148",
            "lsn:0/ab",
            "xid:3",
            "before-xid:4294967295",
            "xid:4294968027",
            "name:before release",
            "backup:20260129-143000F",
        ] {
            assert!(is_documented(good), "{good}");
        }
        for bad in [
            "",
            "now",
            "2026-01-29",
            "2026-01-29T14:30:00",
            "2026-01-29T14:30Z",
            "2026-01-29T14:30:00.1234567Z",
            "2026-01-29T14:30:00+0100",
            "1999-01-29T14:30:00Z",
            "lsn:0",
            "lsn:0/123456789",
            "xid:2",
            "xid:4294967298",
            "xid:03",
            "name:",
            "name: ",
            "names:x",
            "2026-01-29T14:30:0éZ",
        ] {
            assert!(!is_documented(bad), "{bad}");
        }
    }
}
