//! Schemas as a promise: what they do not name is not printed either.

use jsonschema::Validator;
use serde_json::{Value, json};

/// The validator of a schema that is itself a good one.
pub(crate) fn validator(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).unwrap();
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("no good schema: {error}"));
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// The same, which takes a member that is not described for an error.
pub(crate) fn closed(text: &str) -> Validator {
    let mut schema: Value = serde_json::from_str(text).unwrap();
    close(&mut schema);
    validator(&schema.to_string())
}

/// Forbids what a schema does not name, wherever it names members.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let names_members =
                object.get("type") == Some(&json!("object")) && object.contains_key("properties");
            object.values_mut().for_each(close);
            if names_members && !object.contains_key("additionalProperties") {
                object.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(array) => array.iter_mut().for_each(close),
        _ => {}
    }
}

pub(crate) fn must_fit(validator: &Validator, value: &Value) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}\n{value:#}", errors.join("\n"));
}
