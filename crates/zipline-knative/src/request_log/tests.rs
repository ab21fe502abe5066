use super::*;
use crate::observability::DEFAULT_REQUEST_LOG_TEMPLATE;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn revision() -> Revision {
    Revision {
        name: "hello-00001".into(),
        namespace: "ns".into(),
        service: "hello".into(),
        configuration: "hello".into(),
        pod_name: "pod".into(),
        pod_ip: "10.1.2.3".into(),
    }
}

fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        method: "POST",
        request_uri: "/a%2Fb?c=d&e",
        host: "hello.ns.example.com",
        version: Version::HTTP_11,
        remote_addr: "127.0.0.1:4711".parse().unwrap(),
        content_length: 12,
        headers,
        tls: None,
    }
}

const RESPONSE: Response = Response { code: 200, size: 345, latency: Duration::from_micros(1500) };

fn line(template: &str, request: &Request<'_>) -> String {
    let template = Template::parse(template).unwrap().unwrap();
    let mut out = b"before ".to_vec();
    template.write(request, &RESPONSE, &revision(), &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before ").unwrap().to_owned()
}

fn refusal(template: &str) -> String {
    Template::parse(template).unwrap_err().to_string()
}

#[test]
fn the_default_template_is_written_as_go_writes_it() {
    let headers = headers(&[
        ("user-agent", "curl/8 \"quoted\" <b>&amp;=\té\u{200b}"),
        ("referer", "http://a/?x=1'\\"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ]);
    assert_eq!(
        line(DEFAULT_REQUEST_LOG_TEMPLATE, &request(&headers)),
        concat!(
            r#"{"httpRequest": {"requestMethod": "POST", "requestUrl": "/a%2Fb?c\u003Dd\u0026e", "requestSize": "12", "#,
            r#""status": 200, "responseSize": "345", "#,
            r#""userAgent": "curl/8 \"quoted\" \u003Cb\u003E\u0026amp;\u003D\u0009é\u200B", "#,
            r#""remoteIp": "127.0.0.1:4711", "serverIp": "10.1.2.3", "referer": "http://a/?x\u003D1\'\\", "#,
            r#""latency": "0.0015s", "protocol": "HTTP/1.1"}, "traceId": "4bf92f3577b34da6a3ce929d0e0e4736"}"#,
            "\n"
        )
    );
}

#[test]
fn a_peer_is_written_as_go_writes_it() {
    let none = HeaderMap::new();
    for (address, text) in [
        ("[::ffff:10.1.2.3]:80", "10.1.2.3:80\n"),
        ("10.1.2.3:80", "10.1.2.3:80\n"),
        ("[fe80::1]:80", "[fe80::1]:80\n"),
    ] {
        let request = Request { remote_addr: address.parse().unwrap(), ..request(&none) };
        assert_eq!(line("{{.Request.RemoteAddr}}", &request), text);
    }
}

#[test]
fn tls_prints_in_its_place() {
    let none = HeaderMap::new();
    assert_eq!(line("TLS: {{.Request.TLS}}", &request(&none)), "TLS: <nil>\n");
    let tls = Tls { version: 772, cipher_suite: 4865, protocol: "h2".into(), ..Tls::default() };
    let request = Request { tls: Some(&tls), ..request(&none) };
    assert!(line("TLS: {{.Request.TLS}}", &request).starts_with("TLS: {772 true false 4865 "));
    assert_eq!(line("{{if .Request.TLS}}{{.Request.TLS.Version}}{{end}}", &request), "772\n");
}

#[test]
fn a_template_that_does_not_fit_a_request_says_what_go_says() {
    let none = HeaderMap::new();
    for template in [
        "{{.Request.TLS.Version}}",
        "{{lt .Request.Method 3}}",
        "{{index .Request.Header \"X\" 0}}",
        "{{len .Response.Code}}",
    ] {
        assert_eq!(
            line(template, &request(&none)),
            "Invalid request log template: method: POST, response code: 200, latency: 0.0015, url: /a%2Fb?c=d&e\n",
            "{template}"
        );
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (template, part) in [
        ("{{.Request.Something}}", ".Request.Something is not supported; there are .Request.Method, "),
        ("{{.Request}}", ".Request is not supported"),
        ("{{.}}", ". is not supported"),
        ("{{.Request.Header.Get}}", "takes one argument, a header's name"),
        ("{{.Request.Header.Del \"X\"}}", ".Request.Header.Del"),
        (
            "{{range .Request.Header}}{{end}}",
            "range is not supported; there are if, else, end and the functions and, eq",
        ),
        ("{{with .Request}}{{end}}", "with is not supported"),
        ("{{define \"x\"}}{{end}}", "define is not supported"),
        ("{{template \"x\"}}", "template is not supported"),
        ("{{call .Request.Method}}", "call is not supported"),
        ("{{$x := 1}}", "variables are not supported: $x"),
        ("{{x}}", "x is not supported"),
        ("{{}}", "missing value for an action"),
        ("{{js | }}", "unexpected }}"),
        ("{{nil}}", "nil is not a command"),
        ("{{.Response.Code 1}}", "only a function or a method takes arguments"),
        ("{{1 | .Response.Code}}", "only a function or a method takes arguments"),
        ("{{not}}", "not takes 1 arguments, not 0"),
        ("{{eq 1}}", "eq takes 2 to 64 arguments"),
        ("{{if .Response.Code}}x", "this if has no {{end}}"),
        ("{{if .Response.Code}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{.Request.Method", "unclosed action"),
        ("{{/* x", "unclosed comment"),
        ("{{/* x */ }}", "comment ends before closing delimiter"),
        ("{{\"x}}", "unterminated quoted string"),
        ("{{`x}}", "unterminated raw quoted string"),
        ("{{'xy'}}", "not a character constant"),
        ("{{1x}}", "bad number syntax: \"1x\""),
        ("{{(.Response.Code}}", "unexpected }} in parentheses"),
        ("{{(.Response.Code).X}}", "unexpected \".X\" behind a value"),
        ("{{printf .Request.Method}}", "printf takes a text as its format"),
        ("{{printf \"%x\" 1}}", "%x is not supported"),
        ("{{printf \"%d\" .Request.Method}}", "%d does not print a value of this kind"),
        ("{{printf \"%s\"}}", "1 verbs for 0 values"),
        ("{{printf \"%05s\" \"x\"}}", "the flags 0 and + go with"),
        ("{{printf \"%9999d\" 1}}", "at most 1024"),
        ("{{printf \"%\" 1}}", "ends in the middle"),
    ] {
        let error = refusal(template);
        assert!(error.contains(part), "{template}: {error}");
    }
    assert!(refusal(&"x".repeat(TEMPLATE_MAX + 1)).contains("are more than"));
    assert!(refusal(&"{{if 1}}".repeat(100)).contains("conditions in each other"));
    assert!(
        refusal(&format!("{{{{{}1{}}}}}", "(".repeat(100), ")".repeat(100)))
            .contains("parentheses in each other")
    );
    assert!(refusal("ab{{x}}").starts_with("request log template, byte 4: "));
}

#[test]
fn the_empty_template_is_no_log() {
    assert!(Template::parse("").unwrap().is_none());
}

#[test]
fn probes_are_logged_only_if_asked_for() {
    let probe = headers(&[("user-agent", "kube-probe/1.31")]);
    assert!(!is_logged(&probe, false) && is_logged(&probe, true));
    assert!(is_logged(&HeaderMap::new(), false));
}

#[test]
fn every_listed_field_and_function_is_there() {
    for field in supported_fields() {
        Template::parse(&format!("{{{{{field}}}}}")).unwrap();
        Template::parse(&format!("{{{{${field}}}}}")).unwrap();
    }
    for function in supported_functions() {
        assert!(!refusal(&format!("{{{{x | {function}}}}}")).contains(&format!(" {function} is not")));
    }
}

#[test]
fn the_document_lists_what_there_is() {
    let document = include_str!("../../../../docs/knative-settings.md");
    let names = supported_fields().into_iter().chain(supported_functions().iter().copied());
    for name in names.chain(crate::podinfo::KNOWN) {
        assert!(document.contains(&format!("`{name}`")), "{name} is missing in docs/knative-settings.md");
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        template in "(\\{\\{-? ?|-? ?\\}\\}|\\.Request|\\.Header|\\.Get|\\.TLS|\\.Response\\.Code|if |else|end|js |printf |index |eq |\"%?[sdx-]*\"|`|'|\\||\\(|\\)|[0-9.e+-]{1,4}| |\\PC){0,16}",
        target in "\\PC{0,16}",
    ) {
        let none = HeaderMap::new();
        if let Ok(Some(template)) = Template::parse(&template) {
            let request = Request { request_uri: &target, ..request(&none) };
            let mut out = Vec::new();
            template.write(&request, &RESPONSE, &revision(), &mut out);
            prop_assert!(out.ends_with(b"\n"));
        }
    }

    #[test]
    fn any_header_makes_one_line_of_the_default(agent in prop::collection::vec(any::<u8>(), 0..32)) {
        let Ok(value) = HeaderValue::from_bytes(&agent) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", value);
        let template = Template::parse(DEFAULT_REQUEST_LOG_TEMPLATE).unwrap().unwrap();
        let mut out = Vec::new();
        template.write(&request(&headers), &RESPONSE, &revision(), &mut out);
        prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
