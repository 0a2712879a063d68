"""The SAM template as plain CloudFormation, for cfn-lint: what `sam validate` alone does not see.

usage: translate.py TEMPLATE OUTPUT
"""

import json
import os
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

template, output = sys.argv[1:]
with open(template, encoding="utf-8") as file:
    document = yaml_parse(file.read())
document["Globals"]["Function"]["CodeUri"] = "s3://built/archive.zip"
session = boto3.session.Session(region_name="us-east-1")
translated = Translator({}, Parser(), boto_session=session).translate(document, parameter_values={})
with open(output, "w", encoding="utf-8") as file:
    json.dump(translated, file, indent=1)
