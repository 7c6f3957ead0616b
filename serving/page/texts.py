"""What the page says, in English and Korean."""

from __future__ import annotations

LANGUAGES = {"en": "English", "ko": "한국어"}

TEXTS: dict[str, tuple[str, str]] = {
    # The pages
    "search": ("Search", "검색"),
    "feedback": ("Feedback", "피드백"),
    "duplicates": ("Duplicates", "중복 영상"),
    "archive": ("Archive", "아카이브"),
    "compare": ("Base against adapted", "기본 모델과 비교"),
    "language": ("Language", "언어"),
    # Searching
    "look_for": ("What are you looking for?", "무엇을 찾으시나요?"),
    "look_for_example": ("a crane lifts a container, a ship at night", "컨테이너를 들어 올리는 크레인, 밤의 배"),
    "look_for_help": ("Commas between several queries put them side by side.",
                      "쉼표로 나누면 여러 검색어를 나란히 보여 줍니다."),
    "more_options": ("Picture, clip, filters", "사진, 클립, 필터"),
    "not": ("What it shall not show", "제외할 내용"),
    "files": ("Pictures or a short clip to look for", "찾을 사진 또는 짧은 클립"),
    "channel": ("Channel", "채널"),
    "choose": ("Choose", "선택"),
    "category": ("Category", "분류"),
    "after": ("Published from", "게시일 (부터)"),
    "before": ("Published before", "게시일 (이전)"),
    "shortest": ("Video at least (seconds)", "영상 길이 최소 (초)"),
    "longest": ("Video at most (seconds)", "영상 길이 최대 (초)"),
    "sure": ("Confidence at least", "최소 신뢰도"),
    "begin": (
        "Type what a moment shows, or drop a picture. {num} clips can be searched.",
        "찾는 장면을 글로 쓰거나 사진을 올리세요. 클립 {num}개를 검색할 수 있습니다.",
    ),
    "empty_archive": ("The archive is empty: there is nothing to search yet.", "아카이브가 비어 있어 검색할 것이 없습니다."),
    "nothing": ("Nothing fits.", "맞는 장면이 없습니다."),
    "working": ("One moment …", "잠시만요 …"),
    "input": ("Input", "입력"),
    "reason": ("Reason", "이유"),
    "gallery": ("Gallery", "갤러리"),
    "state": ("State", "상태"),
    "searching": ("Searching …", "검색 중 …"),
    "too_many": ("At most {num} queries are shown side by side.", "한 번에 최대 {num}개까지 나란히 볼 수 있습니다."),
    "examples": ("By example", "예시로 찾기"),
    "moment": ("{num} moment", "장면 {num}개"),
    "moments": ("{num} moments", "장면 {num}개"),
    "more": ("Show more", "더 보기"),
    # A moment
    "play": ("Play", "재생"),
    "alike": ("More like this", "비슷한 장면"),
    "like": ("Like", "더 가깝게"),
    "unlike": ("Unlike", "더 멀게"),
    "like_help": ("Moments shall look like this one too", "이 장면과도 비슷한 장면을 찾습니다"),
    "unlike_help": ("Moments shall not look like this one", "이 장면과 다른 장면을 찾습니다"),
    "right": ("Right", "맞음"),
    "wrong": ("Wrong", "틀림"),
    "said": ("Noted: {what}.", "기록했습니다: {what}."),
    "score": ("score {value}", "점수 {value}"),
    "confidence": ("confidence {value} %", "신뢰도 {value} %"),
    "around": ("Around it in the same video", "같은 영상의 앞뒤 장면"),
    "no_play": ("Browsers do not play every format. The file itself:",
                "브라우저가 재생하지 못하는 형식도 있습니다. 원본 파일:"),
    "link": ("This address shows the moment again.", "이 주소로 같은 장면을 다시 볼 수 있습니다."),
    "remove": ("Remove", "제거"),
    "picture_of": ("A picture of {title}", "{title}의 장면"),
    # What goes wrong
    "remedy": ("What to do", "해결 방법"),
    "waiting": ("This page goes on by itself as soon as the API answers.", "API가 응답하면 자동으로 계속됩니다."),
    "key": ("The key", "키"),
    "key_asked": ("This page asks for the key of the archive.", "아카이브의 키가 필요합니다."),
    "key_wrong": ("That is not the key.", "키가 맞지 않습니다."),
    "key_of_page": (
        "Whoever runs this page starts it with VIDSEEK_API_KEY, the key of the API.",
        "이 페이지를 VIDSEEK_API_KEY(API의 키)로 다시 시작해야 합니다.",
    ),
    "admin_key_asked": ("This page asks for the admin key of the archive.", "아카이브의 관리자 키가 필요합니다."),
    "admin_key": ("The admin key", "관리자 키"),
    "enter": ("Enter", "확인"),
    # Feedback
    "feedback_what": (
        "What was said of hits. The table that is frozen holds what was said last of each query and clip.",
        "검색 결과에 대한 의견입니다. 고정하면 검색어와 클립마다 마지막 의견이 표로 저장됩니다.",
    ),
    "nothing_said": ("Nothing was said yet.", "아직 의견이 없습니다."),
    "freeze": ("Freeze", "고정"),
    "frozen": ("Frozen: {num} rows.", "고정했습니다: {num}행."),
    "query": ("Query", "검색어"),
    "clip": ("Clip", "클립"),
    "when": ("When", "시각"),
    "verdict": ("Said", "의견"),
    # Duplicates
    "find": ("Look for near-duplicates", "중복 영상 찾기"),
    "finding": ("Looking for near-duplicates. This may take minutes; the page goes on by itself.",
                "중복 영상을 찾는 중입니다. 몇 분 걸릴 수 있으며, 끝나면 자동으로 표시됩니다."),
    "precision": ("Precision on made copies", "정밀도 (만든 사본 기준)"),
    "precision_help": (
        "The share of what is found that shall be right, as proven on copies made of this archive. Higher finds fewer.",
        "찾은 것 중 맞아야 하는 비율로, 이 아카이브에서 만든 사본으로 확인합니다. 높을수록 적게 찾습니다.",
    ),
    "never_looked": ("Nobody has looked for near-duplicates yet.", "아직 중복 영상을 찾지 않았습니다."),
    "found_none": ("No near-duplicates were found.", "중복 영상이 없습니다."),
    "threshold": (
        "Looked {when}: precision {precision}, recall {recall} on copies made of this archive.",
        "{when}에 찾음: 만든 사본에서 정밀도 {precision}, 재현율 {recall}.",
    ),
    "accept": ("Accept", "중복 맞음"),
    "refuse": ("Refuse", "중복 아님"),
    "open": ("Undecided", "미정"),
    "whole": ("the whole video", "영상 전체"),
    "part": ("a part", "일부"),
    "likeness": ("likeness {value}", "유사도 {value}"),
    "kept": ("kept", "남길 영상"),
    "folded": ("folded into it", "합쳐질 영상"),
    "apply": ("Apply the decisions", "결정 적용"),
    "applied": (
        "Applied: {accepted} accepted, {refused} refused.", "적용했습니다: 중복 {accepted}개, 아님 {refused}개.",
    ),
    "applied_next": ("Searches fold them after the next publish:", "다음 게시 후 검색에 반영됩니다:"),
    # Archive
    "videos": ("Videos", "영상"),
    "total_length": ("Length", "총 길이"),
    "clips": ("Clips", "클립"),
    "clips_cut": ("Clips cut", "잘라 낸 클립"),
    "rejected": ("Rejected", "거부됨"),
    "nothing_rejected": ("Nothing was rejected.", "거부된 항목이 없습니다."),
    "gates": ("Gates", "품질 검사"),
    "gate": ("Gate", "검사"),
    "result": ("Result", "결과"),
    "not_met": ("Not met", "미충족"),
    "download": ("Download", "내려받기"),
    "passed": ("passed", "통과"),
    "failed": ("failed", "실패"),
    "not_run": ("not run yet", "아직 실행되지 않음"),
    "reports": ("Reports", "보고서"),
    "open_report": ("Open", "열기"),
    "figures": ("Held-out queries, R@1", "평가 검색어, R@1"),
    "collections": ("Collections", "컬렉션"),
    "live": ("live", "사용 중"),
    "kept_back": ("kept for a rollback", "되돌리기용 보관"),
    "model": ("Model", "모델"),
    "rollback": ("Roll back", "되돌리기"),
    "rollback_ask": (
        "Make {collection} live in the place of {live}? Searches change at once.",
        "{live} 대신 {collection}을(를) 사용할까요? 검색 결과가 바로 바뀝니다.",
    ),
    "rollback_yes": ("Yes, roll back", "예, 되돌립니다"),
    "rollback_no": ("No", "아니요"),
    "rolled_back": ("{collection} is live now.", "이제 {collection}을(를) 사용합니다."),
    "nothing_before": ("There is no earlier collection to go back to.", "되돌릴 이전 컬렉션이 없습니다."),
    # Compare
    "other_search": ("Base", "기본 모델"),
    "this_search": ("Adapted", "학습한 모델"),
    "other_service": ("The other service", "다른 서비스"),
    "this_service": ("This service", "이 서비스"),
    "asked_of": ("Model {version}", "모델 {version}"),
    "in_both": ("{num} of {of} moments are found by both.", "장면 {of}개 중 {num}개를 두 모델이 모두 찾았습니다."),
    "no_base": (
        "There is no base to compare with. `vidseek base` publishes it, where the live model was taught something.",
        "비교할 기본 모델이 없습니다. 학습한 모델이 게시되어 있다면 `vidseek base`를 실행하면 게시됩니다.",
    ),
    "base_other_state": (
        "The base's collection is of another state of the archive than the live one. `vidseek base` brings it up to date.",
        "기본 모델의 컬렉션이 현재 아카이브와 다른 시점의 것입니다. `vidseek base`를 실행하면 갱신됩니다.",
    ),
    "compare_services": (
        "The same query to two services over the same videos. Left the other one, right this one.",
        "같은 검색어를 같은 영상에서 두 서비스로 찾습니다. 왼쪽은 다른 서비스, 오른쪽은 이 서비스입니다.",
    ),
    "compare_what": (
        "The same query to two models over the same videos. Left without the teaching, right with it.",
        "같은 검색어를 같은 영상에서 두 모델로 찾습니다. 왼쪽은 기본 모델, 오른쪽은 학습한 모델입니다.",
    ),
}


def text(language: str, name: str, **values: object) -> str:
    """Return a text of the page in a language.

    Raises:
        KeyError: there is no such text.
    """
    english, korean = TEXTS[name]
    return (korean if language == "ko" else english).format(**values)
