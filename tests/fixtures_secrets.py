"""Secrets of many kinds, made up anew from a seed: none of them opens anything, and none stands in this repository."""

from __future__ import annotations

import base64
import random
import string
from dataclasses import dataclass

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
B64 = ALNUM + "+/"
URL64 = ALNUM + "-_"
UPPER = string.ascii_uppercase + "234567"


@dataclass(frozen=True, slots=True)
class Planted:
    """A secret as it stands in a file: `before + value + after`."""

    name: str
    language: str
    before: str
    value: str
    after: str

    @property
    def text(self) -> str:
        return self.before + self.value + self.after

    @property
    def core(self) -> str:
        """The longest piece of the secret without white space."""
        return max(self.pieces, key=len)

    @property
    def pieces(self) -> tuple[str, ...]:
        """What must stand nowhere: the secret, each line of it, and its halves where they are long enough to tell."""
        lines = self.value.replace("\\n", "\n").split("\n")
        middle = len(self.value) // 2
        halves = [
            *self.value[:middle].replace("\\n", "\n").split("\n"),
            *self.value[middle:].replace("\\n", "\n").split("\n"),
        ]
        return (*[line for line in lines if len(line) >= 8], *[half for half in halves if len(half) >= 12])


def plant(seed: int = 0) -> tuple[Planted, ...]:
    """One secret of each kind."""
    chance = random.Random(seed)

    def some(alphabet: str, count: int) -> str:
        made = "".join(chance.choice(alphabet) for _ in range(count - 2))
        return made + chance.choice(string.digits if "0" in alphabet else alphabet) + chance.choice(alphabet[:16])

    def password() -> str:
        return "".join(chance.choice(string.ascii_lowercase) for _ in range(5)) + f"{chance.randrange(100, 1000)}!x"

    def pem(kind: str) -> str:
        body = base64.b64encode(chance.randbytes(420)).decode()
        return "\n".join(body[i : i + 64] for i in range(0, len(body), 64))

    uuid = "-".join(some(HEX, n) for n in (8, 4, 4, 4, 12))
    jwt = f"eyJ{some(URL64, 30)}.eyJ{some(URL64, 60)}.{some(URL64, 43)}"
    rsa, openssh = pem("RSA"), pem("OPENSSH")
    code = {
        "aws access key": ('AWS_ACCESS_KEY_ID = "', "AKIA" + some(UPPER, 16), '"'),
        "aws secret key": ('aws_secret_access_key = "', some(B64, 40), '"'),
        "github classic": ('gh = Github("', "ghp_" + some(ALNUM, 36), '")'),
        "github fine-grained": ("# ", f"github_pat_{some(ALNUM, 22)}_{some(ALNUM, 59)}", ""),
        "gitlab": ("client = Gitlab(private='", "glpat-" + some(URL64, 20), "')"),
        "slack bot": ('slack("', f"xoxb-{chance.randrange(10**10, 10**11)}-{some(ALNUM, 24)}", '")'),
        "slack webhook": ('post("https://hooks.slack.com/services/',
                          f"T{some(UPPER, 8)}/B{some(UPPER, 8)}/{some(ALNUM, 24)}", '")'),
        "stripe": ('stripe.api_key = "', "sk_live_" + some(ALNUM, 24), '"'),
        "sendgrid": ("mail = Client('", f"SG.{some(URL64, 22)}.{some(URL64, 43)}", "')"),
        "twilio": ("sid = '", "SK" + some(HEX, 32), "'"),
        "mailgun": ("auth=('api', '", "key-" + some(HEX, 32), "')"),
        "mailchimp": ("mc('", some(HEX, 32) + "-us12", "')"),
        "openai": ('OpenAI(api_key="', f"sk-proj-{some(URL64, 40)}A1", '")'),
        "anthropic": ('x = "', "sk-ant-api03-" + some(URL64, 80), '"'),
        "hugging face": ('login("', "hf_" + some(ALNUM, 34), '")'),
        "google api": ("maps?key=", "AIza" + some(URL64, 35), ""),
        "google oauth": ('client = "', "GOCSPX-" + some(URL64, 28), '"'),
        "azure storage": ('c = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=', some(B64, 86) + "==", ';"'),
        "azure sas": ("u = 'https://a.blob.core.windows.net/c?sv=2022-11-02&sr=c&sig=", some(ALNUM, 40) + "%3D", "'"),
        "azure client secret": ("s('", f"{some(ALNUM, 3)}8Q~{some(URL64, 34)}", "')"),
        "telegram": ("bot = Bot('", f"{chance.randrange(10**9, 10**10)}:AA{some(URL64, 33)}", "')"),
        "discord bot": ("client.run('", f"M{some(ALNUM, 23)}.{some(ALNUM, 6)}.{some(URL64, 38)}", "')"),
        "digitalocean": ("do = '", "dop_v1_" + some(HEX, 64), "'"),
        "shopify": ("shop('", "shpat_" + some(HEX, 32), "')"),
        "square": ("sq('", "sq0atp-" + some(URL64, 22), "')"),
        "atlassian": ("jira(", "ATATT3" + some(URL64, 60), ")"),
        "npm": ("# ", "npm_" + some(ALNUM, 36), ""),
        "pypi": ("p = '", "pypi-AgEIcHlwaS5vcmc" + some(URL64, 60), "'"),
        "databricks": ("d = '", "dapi" + some(HEX, 32), "'"),
        "vault": ("v = '", "hvs." + some(URL64, 90), "'"),
        "notion": ("n = '", "ntn_" + some(ALNUM, 46), "'"),
        "jwt": ("t = '", jwt, "'"),
        "postgres url": ("db = 'postgresql://app:", password(), "@db.example.com/app'"),
        "redis url without a user": ("r = 'redis://:", password(), "@cache:6379/0'"),
        "mongo url": ('m = "mongodb+srv://root:', password(), '@cluster0.example.net/x"'),
        "url with a token": ("git clone https://", "x" + some(ALNUM, 30), "@example.com/a/b.git"),
        "password literal": ('password = "', password(), '"'),
        "keyword argument": ("connect(host, passwd='", password(), "')"),
        "annotated constant": ("DB_PASSWORD: str = '", password(), "'"),
        "dictionary": ('settings = {"smtp_password": "', password(), '"}'),
        "environment default": ('os.environ["ADMIN_PASSWORD"] = "', password(), '"'),
        "api key by its name": ('weather_api_key = "', some(ALNUM, 24), '"'),
        "uuid key": ("heroku_api_key = '", uuid, "'"),
        "bearer header": ('headers = {"Authorization": "Bearer ', some(URL64, 32), '"}'),
        "basic header": ('h["Authorization"] = "Basic ', base64.b64encode(f"me:{password()}".encode()).decode(), '"'),
        "high entropy": ("blob = '", some(B64, 60), "'"),
        "ado connection": ('c = "Server=db;User Id=sa;Password=', password(), ';Encrypt=true"'),
        "rsa key": ('KEY = """-----BEGIN RSA PRIVATE KEY-----\n', rsa, '\n-----END RSA PRIVATE KEY-----"""'),
        "one-line key": ('{"private_key": "-----BEGIN PRIVATE KEY-----\\n',
                         pem("").replace("\n", "\\n"), '\\n-----END PRIVATE KEY-----"}'),
        "password hash": ("user:", "$2y$10$" + some(ALNUM, 53), ""),
    }  # fmt: skip
    other = {
        ("yaml password", "yaml"): ("database:\n  password: ", password(), "\n  port: 5432"),
        ("env file", "dotenv"): ("DEBUG=1\nDB_PASSWORD=", password(), "\nPORT=80"),
        ("env token", "dotenv"): ("export CLOUDFLARE_API_TOKEN=", some(URL64, 40), ""),
        ("properties", "properties"): ("spring.datasource.password=", password(), ""),
        ("curl", "shellscript"): ("curl -s -u admin:", password(), " https://example.com/api"),
        ("command line", "shellscript"): ("tool --user me --password ", password(), " --verbose"),
        ("mysql", "shellscript"): ("mysql -u root -p", password(), " shop"),
        ("npmrc", "ini"): ("//registry.example.com/:_authToken=", some(ALNUM, 36), ""),
        ("netrc", "plaintext"): ("machine example.com login me password ", password(), ""),
        ("pgpass", "plaintext"): ("db.example.com:5432:shop:me:", password(), ""),
        ("xml", "xml"): ("<server><password>", password(), "</password></server>"),
        ("json", "json"): ('{"user": "me", "password": "', password(), '"}'),
        ("docker", "dockerfile"): ("ENV POSTGRES_PASSWORD ", password(), ""),
        ("openssh key", "plaintext"): (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            openssh,
            "\n-----END OPENSSH PRIVATE KEY-----",
        ),
    }
    found = [Planted(name, "python", *parts) for name, parts in code.items()]
    found += [Planted(name, language, *parts) for (name, language), parts in other.items()]
    return tuple(found)
