//! GET and PUT /config/….

use nsquorum_http::{BodyError, HttpError, Reply, Request, read_body};

use super::{Answer, HttpFrontend};
use crate::settings::{SettingError, Shown};

const INVALID_OPTION: HttpError = HttpError::bad_request("INVALID_OPTION");

impl HttpFrontend {
    pub(super) fn show_setting(&self, name: &str) -> Answer {
        let setting = self.settings.get(name).ok_or(INVALID_OPTION)?;
        Ok(match setting.shown() {
            Shown::Text(text) => Reply::Text(text),
            Shown::Json(value) => Reply::Json(value),
        })
    }

    /// The value is the body, which is looked at before the name, as in nsqd.
    pub(super) async fn change_setting(&self, name: &str, request: &mut Request) -> Answer {
        let too_long = HttpError::too_large("INVALID_VALUE");
        let value = match read_body(request.body_mut(), self.config.limits.max_msg_size).await {
            Ok(value) if value.is_empty() => return Err(too_long),
            Ok(value) => value,
            Err(BodyError::TooLong) => return Err(too_long),
            Err(BodyError::Broken) => return Err(HttpError::internal("INTERNAL_ERROR")),
        };
        self.settings.set(name, &value).map_err(|error| match error {
            SettingError::InvalidOption => INVALID_OPTION,
            SettingError::InvalidValue => HttpError::bad_request("INVALID_VALUE"),
        })?;
        tracing::info!(setting = name, "changed over HTTP");
        self.show_setting(name)
    }
}
