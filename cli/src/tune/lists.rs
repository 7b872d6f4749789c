//! Lists of numbers on the command line: `64,128`, and `128..1024` for every doubling from 128 to 1024.

/// Most values of one list.
const MOST: usize = 64;

/// Numbers of a list, each once, in the order in which they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) Vec<i64>);

impl std::str::FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let number = |text: &str| -> Result<i64, String> {
            let n: i64 = text.trim().parse().map_err(|_| {
                format!("`{}` is no number: write 64,128 or 128..1024 (doubling)", text.trim())
            })?;
            if (0..=1 << 40).contains(&n) {
                Ok(n)
            } else {
                Err(format!("{n} is outside 0 to 2^40"))
            }
        };
        let mut all = Vec::new();
        for part in text.split(',') {
            let Some((first, last)) = part.split_once("..") else {
                all.push(number(part)?);
                continue;
            };
            let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
            if first < 1 || last < first {
                return Err(format!("{part} holds nothing: a range doubles from a number above 0"));
            }
            let mut n = first;
            while n <= last {
                all.push(n);
                n *= 2;
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|n| seen.insert(*n));
        if all.len() > MOST {
            return Err(format!("{} values; a list has at most {MOST}", all.len()));
        }
        Ok(Numbers(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let list = |text: &str| text.parse::<Numbers>().unwrap().0;
        assert_eq!(list("64"), [64]);
        assert_eq!(list("64, 128,64"), [64, 128]);
        assert_eq!(list("128..1024"), [128, 256, 512, 1024]);
        assert_eq!(list("0,100..=500"), [0, 100, 200, 400]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "x", "1,,2", "0..8", "8..4", "-1", "1.5", "..", "1..x", "9999999999999999"]
        {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }
}
