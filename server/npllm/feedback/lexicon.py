"""What people say about a suggestion, as feelings: (satisfaction, confidence, frustration), each in [0, 1].

Our own tables, because no well-kept library gives valence for emoji, and sentiment lexicons know neither "LGTM" nor
"does not compile". Portuguese of Brazil and of Portugal, without accents. Disagreement alone ("wrong", thumbs down)
is frustration below 0.7; only anger and weariness are above, where a suggestion is never made again.
"""

from __future__ import annotations

Feeling = tuple[float, float, float]

PLEASED: Feeling = (0.8, 0.3, 0.0)
DELIGHTED: Feeling = (1.0, 0.8, 0.0)
SURE: Feeling = (0.85, 1.0, 0.0)
NEARLY: Feeling = (0.3, 0.1, 0.2)
DOUBT: Feeling = (0.0, 0.0, 0.3)
WRONG: Feeling = (0.0, 0.0, 0.6)
WEARY: Feeling = (0.0, 0.0, 0.85)
ANGRY: Feeling = (0.0, 0.0, 1.0)

EMOJI: dict[str, Feeling] = {
    **dict.fromkeys("👍 🙂 😊 😀 😃 😄 😁 ☺ 👌 🆗 💚 💙 🧡 💛 🤗 😌 🙏 ✔ ☑ 😉 🤙 🫶".split(), PLEASED),
    **dict.fromkeys("❤ 😍 🥰 🤩 🎉 🥳 🔥 ⭐ 🌟 ✨ 👏 🙌 💯 🏆 🚀 😻 💖 🤯 🦾".split(), DELIGHTED),
    **dict.fromkeys("🎯 💪 ✅ 😎 🧠 💡 🤝 🥇 🫡".split(), SURE),
    **dict.fromkeys("😐 😶 🤷 😑 🫤 🤨 🫠 🙃".split(), (0.0, 0.0, 0.2)),
    **dict.fromkeys("🤔 😕 🙁 ☹ 😟 😬 🙄 😒 ❓ ⁉ 🐌".split(), (0.0, 0.0, 0.4)),
    **dict.fromkeys("👎 😞 😔 😓 💔 😢 ❌ ✖ 🚫 🤦 🐛".split(), WRONG),
    **dict.fromkeys("😩 😫 😖 😣 😤 🥱".split(), WEARY),
    **dict.fromkeys("😡 😠 🤬 💩 🤮 👿 🗑 😭 ☠ 💀 🖕 💢".split(), ANGRY),
}

SIGNS: dict[str, str] = {  # as people type them
    "+1": "👍", ":)": "🙂", ":-)": "🙂", ":d": "😀", ":-d": "😀", ";)": "😉", "<3": "❤",
    "-1": "👎", ":(": "🙁", ":-(": "🙁", ":/": "😕", ":-/": "😕", "</3": "💔",
}  # fmt: skip


def _phrases(text: str, feeling: Feeling) -> dict[str, Feeling]:
    return dict.fromkeys((phrase.strip() for phrase in text.split("|")), feeling)


PHRASES: dict[str, Feeling] = {
    # English
    **_phrases(
        "lgtm|looks good|nice|good|good one|great|thanks|thank you|thx|helpful|useful|works|it works|that works|"
        "well done|good job|neat|like it|like this|no problem|not bad|good enough|makes sense|clean|elegant|handy|"
        "much better|way better|better than mine|saves time|go on|keep it|more like this|more of this",
        PLEASED,
    ),
    **_phrases(
        "perfect|excellent|awesome|amazing|brilliant|love it|love this|love that|fantastic|wonderful|wow|saved me|"
        "exactly what i wanted|exactly what i needed|impressive|beautiful|superb|incredible|could not be better|"
        "couldn't be better|mind blowing",
        DELIGHTED,
    ),
    **_phrases(
        "exactly|correct|spot on|precisely|as expected|that's it|thats it|ship it|on point|nailed it|that's right|"
        "you got it|just what i meant",
        SURE,
    ),
    **_phrases("almost|close enough|nearly|almost there|so close|on the right track|nearly there", NEARLY),
    **_phrases(
        "meh|so so|not sure|maybe|confusing|unclear|odd|strange|weird|not quite|could be better|should be better|slow|"
        "too slow|too long|too short|verbose|too much|overkill|incomplete|nice try|not needed|unnecessary|redundant",
        DOUBT,
    ),
    **_phrases(
        "bad|wrong|incorrect|not good|not right|nope|no way|does not work|doesn't work|doesnt work|didn't work|"
        "did not work|not working|broken|breaks|buggy|not helpful|worse|outdated|deprecated|irrelevant|"
        "does not compile|doesn't compile|fails|failed|crashes|hallucinated|hallucination|made up|does not exist|"
        "doesn't exist|not what i wanted|not what i want|not what i meant|no such|mistake|off topic|misleading|"
        "insecure|no thanks",
        WRONG,
    ),
    **_phrases(
        "useless|wrong again|still wrong|not again|annoying|annoyed|nonsense|hate it|hate this|hate that|stop it|"
        "stop this|stop that|never again|go away|shut up|waste of time|frustrating|frustrated|sick of|"
        "fed up|always wrong",
        WEARY,
    ),
    **_phrases("terrible|horrible|awful|garbage|rubbish|trash|stupid|wtf|worst|crap|shit|disaster|idiotic", ANGRY),
    # Portuguese
    **_phrases(
        "bom|boa|bacana|gostei|gosto|curti|obrigado|obrigada|valeu|funciona|funcionou|ajudou|util|beleza|certinho|"
        "muito bom|muito boa|fixe|porreiro|massa|da hora|joia|nada mal|nada mau|sem problema|sem problemas|"
        "bem feito|faz sentido|bonito|lindo|limpo|ficou bom|ficou boa|muito melhor|bem melhor|continua assim|brigado",
        PLEASED,
    ),
    **_phrases(
        "otimo|otima|perfeito|perfeita|excelente|maravilha|maravilhoso|incrivel|adorei|amei|fantastico|fantastica|genial|"
        "espetacular|sensacional|top|top demais|brutal|impecavel|arrasou|mandou bem|show de bola",
        DELIGHTED,
    ),
    **_phrases(
        "exato|exatamente|correto|correta|certo|certo demais|isso mesmo|isso ai|na mosca|como esperado|e isso|"
        "era isso|acertou|em cheio|exatamente o que eu queria",
        SURE,
    ),
    **_phrases("quase|quase la|por pouco|quase isso", NEARLY),
    **_phrases(
        "mais ou menos|talvez|confuso|confusa|estranho|estranha|nao sei|esquisito|lento|demorado|demais longo|"
        "longo demais|muito longo|incompleto|desnecessario|podia ser melhor|poderia ser melhor|pode melhorar",
        DOUBT,
    ),
    **_phrases(
        "ruim|errado|errada|errou|incorreto|incorreta|nao funciona|nao funcionou|nao gostei|nao gosto|nao presta|"
        "nao ajudou|nao e isso|nao era isso|quebrado|quebrou|pior|nada a ver|mau|ma ideia|deu erro|da erro|nao compila|"
        "nao existe|inventou|falhou|falha|bugado|fraco|sem sentido|nao serve|nao quero|nao precisa|enganado",
        WRONG,
    ),
    **_phrases(
        "inutil|chato|irritante|de novo errado|errado de novo|outra vez|odiei|odeio|que raiva|para com isso|nunca mais|"
        "chega|cansei|perda de tempo|sempre errado|que saco|frustrante",
        WEARY,
    ),
    **_phrases(
        "pessimo|pessima|horrivel|terrivel|lixo|merda|porcaria|droga|bosta|ridiculo|desastre|uma desgraca", ANGRY
    ),
}

# Words that say it only when they stand alone ("right", but not "the right side"; "no", but not Portuguese "no").
ALONE: dict[str, Feeling] = {
    **_phrases("ok|okay|fine|yes|yep|cool|better|best|legal|sim|show|melhor|done", PLEASED),
    **_phrases("right|sure|bingo", SURE),
    **_phrases("close", NEARLY),
    **_phrases("no|nao|stop|nah", WRONG),
    **_phrases("hate|argh|ugh|grr|pare|para", WEARY),
}

FILLERS = frozenset(
    "it is it's its that that's this very really so just totally a an all looks seems quite pretty much now too i "
    "e esta ta ficou isso isto foi muito bem tao que demais era um uma o a eu assim hein ne".split()
)
STRONGER = frozenset(
    "very really so totally absolutely extremely completely always utterly muito demais super totalmente "
    "completamente sempre bem tao mesmo".split()
)
WEAKER = frozenset("bit little slightly somewhat rather kinda pouco meio ligeiramente pouquinho".split())
PORTUGUESE = frozenset(  # words by which a comment is known not to be English
    "que de isso isto um uma para com na da em eu nao esta mais por ser foi tem aqui dos das nos essa esse".split()
)
NEGATION = frozenset(
    "not never isn't isnt wasn't wasnt don't dont doesn't doesnt didn't didnt won't can't cannot ain't without no "
    "nao nunca nem jamais tampouco".split()
)
