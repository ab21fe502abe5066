//! Which headers pass and which are Zipline's own (protocol, section 5.7).

use http::header::{CONTENT_TYPE, HeaderMap};
use zipline_protocol::{REFERENCE_MEDIA_TYPE, header};

/// Removes every Zipline header; gives their number.
pub(crate) fn strip(headers: &mut HeaderMap) -> usize {
    strip_except(headers, None)
}

/// Removes every Zipline header of a response but the error code; gives their number.
pub(crate) fn strip_response(headers: &mut HeaderMap) -> usize {
    strip_except(headers, Some(header::ERROR))
}

fn strip_except(headers: &mut HeaderMap, except: Option<&str>) -> usize {
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(header::PREFIX) && Some(name.as_str()) != except)
        .cloned()
        .collect();
    for name in &ours {
        headers.remove(name);
    }
    ours.len()
}

/// Whether the message's body is a reference.
pub(crate) fn is_deferred(headers: &HeaderMap) -> bool {
    media_type(headers)
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case(REFERENCE_MEDIA_TYPE.as_bytes()))
}

/// Whether the message is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    media_type(headers).is_some_and(|media_type| {
        media_type.len() >= GRPC.len()
            && media_type[..GRPC.len()].eq_ignore_ascii_case(GRPC)
            && matches!(media_type.get(GRPC.len()), None | Some(b'+'))
    })
}

/// Those headers of a request that decide the form of an error answer.
pub(crate) fn form(request: &HeaderMap) -> HeaderMap {
    request.get(CONTENT_TYPE).map(|value| (CONTENT_TYPE, value.clone())).into_iter().collect()
}

/// The content type without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(CONTENT_TYPE)?.as_bytes();
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

/// The one value of a header, if it is there once and is text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with_type(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))])
    }

    #[test]
    fn strips_ours_and_only_ours() {
        let mut headers = with_type("text/plain");
        for name in ["zipline-opened", "zipline-anything", "zipline-error", "x-zipline-mine"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        let mut response = headers.clone();
        assert_eq!(strip(&mut headers), 3);
        assert_eq!(headers.len(), 2);
        assert_eq!(strip_response(&mut response), 2);
        assert!(response.contains_key("zipline-error"));
    }

    #[test]
    fn media_types() {
        assert!(is_deferred(&with_type("application/vnd.zipline.reference")));
        assert!(is_deferred(&with_type("Application/VND.zipline.reference ; a=b")));
        assert!(!is_deferred(&with_type("application/vnd.zipline.references")));
        assert!(is_grpc(&with_type("application/grpc")));
        assert!(is_grpc(&with_type("application/grpc+proto; x")));
        assert!(!is_grpc(&with_type("application/grpc-web")));
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
