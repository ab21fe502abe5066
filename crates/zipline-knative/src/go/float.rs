//! Numbers with a fraction as Go's `%v` writes them.

/// The lowest power of ten that is written with an exponent.
const EXPONENT_FROM: i32 = 6;

/// Writes `value` as `fmt` does for `%v`: the shortest digits that come back as the same number, with an exponent below
/// 1e-4 and from 1e6 on.
pub(crate) fn display(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..EXPONENT_FROM).contains(&exponent) {
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
            (123_456.5, "123456.5"),
            (123_456_789.0, "1.23456789e+08"),
            (1e6, "1e+06"),
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
