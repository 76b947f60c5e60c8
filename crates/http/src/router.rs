//! Which endpoint a method and a path name.
//!
//! nsqd's router has habits that tools have come to rely on: a path with a trailing slash too much, doubled slashes or another case is
//! redirected to the right one; a known path with the wrong method is 405 with an `Allow` header, for HEAD too.

use hyper::Method;

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
    /// Not this path, but this one.
    Redirect(String),
    /// OPTIONS: the methods of the path.
    Options(String),
    /// The path has other methods: these.
    MethodNotAllowed(String),
    /// No such path.
    NotFound,
}

impl<E: Copy> Router<E> {
    /// A table of (method, path, endpoint); paths have no parameters and no trailing slash.
    pub const fn new(routes: &'static [(Method, &'static str, E)]) -> Self {
        Self { routes }
    }

    /// Looks up a request.
    pub fn resolve(&self, method: &Method, path: &str) -> Resolution<E> {
        if let Some((_, _, endpoint)) = self.of(method).find(|(_, route, _)| *route == path) {
            return Resolution::Endpoint(*endpoint);
        }
        if method != Method::CONNECT && path != "/" {
            let cleaned = clean(path);
            let fixed = without_slash(&cleaned);
            let near = |route: &str| route == without_slash(path) || route.eq_ignore_ascii_case(fixed);
            if let Some((_, route, _)) = self.of(method).find(|(_, route, _)| near(route)) {
                return Resolution::Redirect((*route).to_owned());
            }
        }
        match self.allowed(method, path) {
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
            .filter(|(method, route, _)| method != asked && (path == "*" || *route == path));
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
    ]);

    #[test]
    fn known_routes_are_found() {
        assert_eq!(ROUTER.resolve(&Method::GET, "/ping"), Resolution::Endpoint(1));
        assert_eq!(ROUTER.resolve(&Method::POST, "/topic/create"), Resolution::Endpoint(2));
        assert_eq!(ROUTER.resolve(&Method::PUT, "/both"), Resolution::Endpoint(4));
    }

    #[test]
    fn nearly_right_paths_are_redirected() {
        for path in ["/ping/", "//ping", "/PING", "/./ping", "/x/../ping", "//Ping/"] {
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
        assert_eq!(
            ROUTER.resolve(&Method::OPTIONS, "*"),
            Resolution::Options("GET, OPTIONS, POST, PUT".into())
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
