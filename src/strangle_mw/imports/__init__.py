"""Tables made from what other systems say of their routes: Refactor Spaces, CloudFormation, OpenAPI."""
