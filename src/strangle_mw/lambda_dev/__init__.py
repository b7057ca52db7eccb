"""`strangle lambda-dev`: AWS Lambda functions on a developer's machine, run by AWS's own runtime client.

    cli_lambda -> checks, server -> invoke -> function -> worker -> http
                                    server -> changes, terminal

Nothing here is used by an app in production, and nothing of the library but `errors` is used here.
"""
