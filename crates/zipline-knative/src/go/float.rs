//! Numbers with a fraction as Go's `%v` writes them.

/// Writes `value` as `fmt` does for `%v`: the shortest digits that come back as the same number, with an exponent below
/// 1e-4 and from 1e21 on.
pub(crate) fn display(value: f64) -> String {
    shortest(value, 21)
}

/// As [`display`], with an exponent from `10^limit` on.
fn shortest(value: f64, limit: i32) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..limit).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1.5e-4, "0.00015"),
            (1.234e-5, "1.234e-05"),
            (0.000001, "1e-06"),
            (123_456_789.0, "123456789"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(display(value), text);
        }
        assert_eq!(display(f64::NAN), "NaN");
    }
}
