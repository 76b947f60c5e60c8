//! Which endpoint a method and a path name.
//!
//! nsqd's router has habits that tools have come to rely on: a path with a trailing slash too much, doubled slashes or another case is
//! redirected to the right one; a known path with the wrong method is 405 with an `Allow` header, for HEAD too.

use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What Go leaves as it is in the path of an address; everything else is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// A table of routes; `E` names an endpoint.
#[derive(Clone, Debug)]
pub struct Router<E: 'static> {
    routes: &'static [(Method, &'static str, E)],
}

/// What the table says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<E> {
    /// An endpoint.
    Endpoint(E),
    /// An endpoint whose path ends with a parameter, and the parameter: not empty, without escapes and slashes.
    WithParameter(E, String),
    /// Not this path, but this one.
    Redirect(String),
    /// OPTIONS: the methods of the path.
    Options(String),
    /// The path has other methods: these.
    MethodNotAllowed(String),
    /// No such path.
    NotFound,
    /// The path has a `%` without two hex digits behind it.
    Malformed,
}

/// How a route's path and a request's fit together.
enum Fit<'p> {
    Exactly,
    Parameter(&'p str),
}

impl<E: Copy> Router<E> {
    /// A table of (method, path, endpoint). Paths have no trailing slash; a path that ends with `/:name` has a parameter there.
    pub const fn new(routes: &'static [(Method, &'static str, E)]) -> Self {
        Self { routes }
    }

    /// Looks up a request. The path is as it came; what counts is the path without escapes, as in Go.
    pub fn resolve(&self, method: &Method, path: &str) -> Resolution<E> {
        let Some(path) = unescape(path) else {
            return Resolution::Malformed;
        };
        for (_, route, endpoint) in self.of(method) {
            match fit(route, &path) {
                None => {}
                Some(Fit::Exactly) => return Resolution::Endpoint(*endpoint),
                Some(Fit::Parameter(parameter)) => return Resolution::WithParameter(*endpoint, parameter.to_owned()),
            }
        }
        if method != Method::CONNECT && path != "/" {
            let cleaned = clean(&path);
            if let Some(nearest) = self.of(method).find_map(|(_, route, _)| near(route, &path, &cleaned)) {
                return Resolution::Redirect(utf8_percent_encode(&nearest, ESCAPED).to_string());
            }
        }
        match self.allowed(method, &path) {
            None => Resolution::NotFound,
            Some(allow) if method == Method::OPTIONS => Resolution::Options(allow),
            Some(allow) => Resolution::MethodNotAllowed(allow),
        }
    }

    fn of(&self, method: &Method) -> impl Iterator<Item = &'static (Method, &'static str, E)> {
        self.routes.iter().filter(move |(of, _, _)| of == method)
    }

    fn allowed(&self, asked: &Method, path: &str) -> Option<String> {
        let matching = self
            .routes
            .iter()
            .filter(|(method, route, _)| method != asked && fit(route, path).is_some());
        let mut methods: Vec<&str> = matching.map(|(method, _, _)| method.as_str()).collect();
        if methods.is_empty() {
            return None;
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.dedup();
        Some(methods.join(", "))
    }
}

/// The path without escapes.
fn unescape(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_whole = |(at, byte): (usize, &u8)| *byte != b'%' || (is_digit(at + 1) && is_digit(at + 2));
    let is_valid = bytes.iter().enumerate().all(is_whole);
    is_valid.then(|| percent_decode_str(path).decode_utf8_lossy().into_owned())
}

/// What stands before a route's parameter, with the slash.
fn before_parameter(route: &str) -> Option<&str> {
    route.rfind("/:").map(|at| &route[..=at])
}

fn fit<'p>(route: &str, path: &'p str) -> Option<Fit<'p>> {
    match before_parameter(route) {
        None => (route == path).then_some(Fit::Exactly),
        Some(before) => {
            let parameter = path.strip_prefix(before)?;
            let is_one = !parameter.is_empty() && !parameter.contains('/');
            is_one.then_some(Fit::Parameter(parameter))
        }
    }
}

/// The path that was meant, if it is this route's.
fn near(route: &str, path: &str, cleaned: &str) -> Option<String> {
    let fixed = without_slash(cleaned);
    let Some(before) = before_parameter(route) else {
        return (route == without_slash(path) || route.eq_ignore_ascii_case(fixed)).then(|| route.to_owned());
    };
    let start = fixed.get(..before.len())?;
    let parameter = &fixed[before.len()..];
    let is_one = start.eq_ignore_ascii_case(before) && !parameter.is_empty() && !parameter.contains('/');
    is_one.then(|| format!("{before}{parameter}"))
}

fn without_slash(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some(stem) if !stem.is_empty() => stem,
        _ => path,
    }
}

/// The path without empty, `.` and `..` segments.
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Router<u8> = Router::new(&[
        (Method::GET, "/ping", 1),
        (Method::POST, "/topic/create", 2),
        (Method::GET, "/both", 3),
        (Method::PUT, "/both", 4),
        (Method::GET, "/config/:opt", 5),
        (Method::PUT, "/config/:opt", 6),
    ]);

    #[test]
    fn known_routes_are_found() {
        assert_eq!(ROUTER.resolve(&Method::GET, "/ping"), Resolution::Endpoint(1));
        assert_eq!(ROUTER.resolve(&Method::POST, "/topic/create"), Resolution::Endpoint(2));
        assert_eq!(ROUTER.resolve(&Method::PUT, "/both"), Resolution::Endpoint(4));
        assert_eq!(ROUTER.resolve(&Method::GET, "/%70ing"), Resolution::Endpoint(1));
        assert_eq!(ROUTER.resolve(&Method::GET, "/ping%"), Resolution::Malformed);
    }

    #[test]
    fn nearly_right_paths_are_redirected() {
        for path in [
            "/ping/",
            "//ping",
            "/PING",
            "/./ping",
            "/x/../ping",
            "//Ping/",
            "/ping%2f",
        ] {
            assert_eq!(
                ROUTER.resolve(&Method::GET, path),
                Resolution::Redirect("/ping".into()),
                "{path}"
            );
        }
        assert_eq!(
            ROUTER.resolve(&Method::POST, "/topic/create/"),
            Resolution::Redirect("/topic/create".into())
        );
    }

    #[test]
    fn wrong_methods_are_named() {
        let allow = |methods: &str| Resolution::MethodNotAllowed(methods.to_owned());
        assert_eq!(ROUTER.resolve(&Method::POST, "/ping"), allow("GET, OPTIONS"));
        assert_eq!(ROUTER.resolve(&Method::HEAD, "/ping"), allow("GET, OPTIONS"));
        assert_eq!(ROUTER.resolve(&Method::GET, "/topic/create"), allow("OPTIONS, POST"));
        assert_eq!(ROUTER.resolve(&Method::POST, "/both"), allow("GET, OPTIONS, PUT"));
        assert_eq!(
            ROUTER.resolve(&Method::OPTIONS, "/both"),
            Resolution::Options("GET, OPTIONS, PUT".into())
        );
    }

    #[test]
    fn a_parameter_is_one_segment() {
        let found = |number, parameter: &str| Resolution::WithParameter(number, parameter.to_owned());
        assert_eq!(ROUTER.resolve(&Method::GET, "/config/log_level"), found(5, "log_level"));
        assert_eq!(ROUTER.resolve(&Method::PUT, "/config/%6cog%20x"), found(6, "log x"));
        for path in ["/config", "/config/", "/config/a/b"] {
            assert_eq!(ROUTER.resolve(&Method::GET, path), Resolution::NotFound, "{path}");
        }
        for (path, meant) in [
            ("/config/a/", "/config/a"),
            ("/CONFIG//A", "/config/A"),
            ("//config/a%20b", "/config/a%20b"),
        ] {
            let redirect = Resolution::Redirect(meant.to_owned());
            assert_eq!(ROUTER.resolve(&Method::GET, path), redirect, "{path}");
        }
        let allow = "GET, OPTIONS, PUT".to_owned();
        assert_eq!(
            ROUTER.resolve(&Method::POST, "/config/a"),
            Resolution::MethodNotAllowed(allow.clone())
        );
        assert_eq!(
            ROUTER.resolve(&Method::OPTIONS, "/config/a"),
            Resolution::Options(allow)
        );
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for path in ["/", "/pin", "/ping/x", "/topic", ""] {
            assert_eq!(ROUTER.resolve(&Method::GET, path), Resolution::NotFound, "{path}");
        }
        // A path that only another method has is not redirected, as in nsqd.
        assert_eq!(ROUTER.resolve(&Method::POST, "/ping/"), Resolution::NotFound);
    }
}
