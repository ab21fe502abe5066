//! What of a request a template can show.

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    RequestUri,
    Url,
    UrlPath,
    UrlEscapedPath,
    UrlRawQuery,
    UrlScheme,
    UrlHost,
    Host,
    Proto,
    ProtoMajor,
    ProtoMinor,
    RemoteAddr,
    UserAgent,
    Referer,
    ContentLength,
    Header,
    /// The values of a header by its name as Go spells it.
    HeaderKey(String),
    Tls,
    TlsVersion,
    TlsDidResume,
    TlsCipherSuite,
    TlsProtocol,
    TlsServerName,
    Code,
    Size,
    Latency,
    RevisionName,
    RevisionNamespace,
    RevisionService,
    RevisionConfiguration,
    RevisionPodName,
    RevisionPodIp,
    TraceId,
}

/// What kind of value stands where, as far as it is known before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    /// Something that `%v` alone can print.
    Other,
    /// It depends on the request.
    Open,
}

const TABLE: [(&str, Field, Kind); 34] = [
    (".Request.Method", Field::Method, Kind::Text),
    (".Request.RequestURI", Field::RequestUri, Kind::Text),
    (".Request.URL", Field::Url, Kind::Other),
    (".Request.URL.String", Field::Url, Kind::Text),
    (".Request.URL.Path", Field::UrlPath, Kind::Text),
    (".Request.URL.EscapedPath", Field::UrlEscapedPath, Kind::Text),
    (".Request.URL.RawQuery", Field::UrlRawQuery, Kind::Text),
    (".Request.URL.Scheme", Field::UrlScheme, Kind::Text),
    (".Request.URL.Host", Field::UrlHost, Kind::Text),
    (".Request.Host", Field::Host, Kind::Text),
    (".Request.Proto", Field::Proto, Kind::Text),
    (".Request.ProtoMajor", Field::ProtoMajor, Kind::Int),
    (".Request.ProtoMinor", Field::ProtoMinor, Kind::Int),
    (".Request.RemoteAddr", Field::RemoteAddr, Kind::Text),
    (".Request.UserAgent", Field::UserAgent, Kind::Text),
    (".Request.Referer", Field::Referer, Kind::Text),
    (".Request.ContentLength", Field::ContentLength, Kind::Int),
    (".Request.Header", Field::Header, Kind::Other),
    (".Request.TLS", Field::Tls, Kind::Other),
    (".Request.TLS.Version", Field::TlsVersion, Kind::Int),
    (".Request.TLS.DidResume", Field::TlsDidResume, Kind::Bool),
    (".Request.TLS.CipherSuite", Field::TlsCipherSuite, Kind::Int),
    (".Request.TLS.NegotiatedProtocol", Field::TlsProtocol, Kind::Text),
    (".Request.TLS.ServerName", Field::TlsServerName, Kind::Text),
    (".Response.Code", Field::Code, Kind::Int),
    (".Response.Size", Field::Size, Kind::Int),
    (".Response.Latency", Field::Latency, Kind::Float),
    (".Revision.Name", Field::RevisionName, Kind::Text),
    (".Revision.Namespace", Field::RevisionNamespace, Kind::Text),
    (".Revision.Service", Field::RevisionService, Kind::Text),
    (".Revision.Configuration", Field::RevisionConfiguration, Kind::Text),
    (".Revision.PodName", Field::RevisionPodName, Kind::Text),
    (".Revision.PodIP", Field::RevisionPodIp, Kind::Text),
    (".TraceID", Field::TraceId, Kind::Text),
];

/// The fields a template may show, methods of headers apart.
#[must_use]
pub fn supported_fields() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _, _)| *name).collect()
}

impl Field {
    /// The field at a path like `.Request.Method`.
    pub(super) fn at(path: &str) -> Option<Self> {
        if let Some((_, field, _)) = TABLE.iter().find(|(name, _, _)| *name == path) {
            return Some(field.clone());
        }
        let key = path.strip_prefix(".Request.Header.")?;
        // Go has methods of these names, and methods come first.
        let method = ["Add", "Clone", "Del", "Get", "Set", "Values", "Write", "WriteSubset"].contains(&key);
        (!method && !key.contains('.') && !key.is_empty()).then(|| Self::HeaderKey(key.to_owned()))
    }

    pub(super) fn kind(&self) -> Kind {
        // A URL is printed by its method, so that %s takes it too.
        let entry = TABLE.iter().find(|(_, field, _)| field == self);
        entry.map_or(Kind::Other, |(_, field, kind)| if *field == Self::Url { Kind::Open } else { *kind })
    }
}
