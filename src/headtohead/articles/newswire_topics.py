"""The sentences of the bundled news reports: pure data, read by `newswire.py`.

A topic is one entry of `TOPICS`. To add one, copy an entry and reword it:

    lead       opening sentences, each with up to two of the five slots
    person, city, organisation, number, day
               sentences that state this fact and no other
    filler     sentences without slots
    wrong      sentences that carry somebody else's name, place, number or day
    summary    reference summaries with all five slots, one sentence per line

`[a|b]` stands for one of the alternatives, `{slot}` for a value. In an article the story's own value always follows
the word in `CUES`. So do the values of most sentences in `wrong`, which are plainly about something else: an earlier
event, another place, a rumour. What tells them apart is the sentence, and no one word of it. The tests check that, and
that no sentence has more than 20 words.
"""

CUES = {"person": "chief", "city": "in", "organisation": "by", "number": "of", "day": "on"}

# Every topic may use these too.
FILLER = (
    "Nobody had expected [so much attention|such interest|a crowd].",
    "Many people stopped to [take photographs|watch|ask what was going on].",
    "The mood was [calm|cheerful|tense|serious] throughout.",
    "It was not the first time that the plan had been discussed.",
    "A short statement was read out to [reporters|the press].",
    "Some of those present had waited for [hours|most of the day].",
    "Few could remember anything like it.",
    "Coffee and sandwiches were handed out [nearby|at the door|to those who waited].",
    "There was a long [pause|silence] before the first question.",
    "The details will be [published|discussed|checked] later in the year.",
    "Older people said that things had once been [simpler|very different].",
    "Parking was [difficult|almost impossible], and several streets were closed.",
    "Questions about the cost were [left open|not answered].",
    "The news spread quickly [online|by telephone|through the neighbourhood].",
    "For some it came as a surprise.",
    "Both sides have promised to [keep talking|meet again].",
    "A full account will take [weeks|months] to prepare.",
    "Local schools followed the events [closely|with interest].",
    "Several buses had to take another route.",
    "The phones did not stop ringing all [morning|afternoon|evening].",
    "What happens next is [far from clear|hard to predict].",
    "Not everyone was [pleased|convinced|impressed].",
    "Experts called it [unusual|remarkable|a sign of the times].",
    "By evening the streets were [quiet|empty|full] again.",
)

WRONG = (
    "Something similar happened in {city} last year.",
    "A false report on {day} had spoken of {number} people.",
    "A rumour spread by {organisation} proved to be wrong.",
    "Stories about the former chief {person} were denied.",
    "A quite different meeting was held on {day}.",
    "Listeners in {city} had heard an untrue story told by {organisation}.",
    "At another place, a crowd of {number} waited in vain.",
    "A neighbouring county's chief {person} declined to comment.",
    "Visitor {person} had come all the way from {city}.",
    "More details are expected after {day}.",
    "Columnist {person} had predicted it around {day}.",
    "Reporters also called {organisation}, which had no role.",
    "Local radio had guessed at nearly {number}.",
    "Student {person} once worked for {organisation}.",
)

TOPICS = {
    "fire": {
        "lead": (
            "A [fierce|huge|fast-moving] fire has torn through a row of shops in {city}.",
            "Families were led to safety on {day} when an old warehouse caught fire.",
            "Smoke filled the sky as firefighters fought a blaze [at a mill|at a market|beside a school].",
            "A fire that began in a kitchen has damaged a total of {number} homes.",
            "Firefighters in {city} spent the night fighting a [large|fierce] blaze.",
        ),
        "person": (
            "Fire chief {person} [praised|thanked] the crews.",
            "Rescue chief {person} said the roof could still fall.",
            "The cause is not yet known, said fire chief {person}.",
        ),
        "city": (
            "The flames were first seen in {city}.",
            "Sirens were heard in {city} [all night|for hours].",
            "Several roads in {city} remain closed.",
        ),
        "organisation": (
            "[Beds|Meals|Blankets] for the families were provided by {organisation}.",
            "The families are being helped by {organisation}.",
            "A shelter was opened by {organisation}.",
        ),
        "number": (
            "A total of {number} homes were damaged.",
            "Inspectors made a list of {number} damaged homes.",
            "The fire left a total of {number} homes damaged by [smoke|flames|water].",
        ),
        "day": (
            "The alarm was raised on {day}.",
            "The fire broke out on {day} [before dawn|around noon|after dark].",
            "It was on {day} that the first call came.",
        ),
        "filler": (
            "Firefighters pumped water from [the river|a nearby canal] for hours.",
            "Two engines arrived within minutes.",
            "The smoke could be seen [for miles|from the motorway].",
            "People were told to keep their windows [closed|shut].",
            "A dog was carried out [unharmed|wrapped in a blanket].",
            "Inspectors will search the ruins once they have cooled.",
            "The oldest part of the building could not be saved.",
            "Strong winds made the work [harder|more dangerous].",
        ),
        "wrong": (
            "An earlier fire in {city} left a total of {number} homes empty.",
            "The retired fire chief {person} remembered another blaze, first seen in {city}.",
            "After last year's fire, families were helped by {organisation}.",
            "Another alarm, raised on {day}, had proved to be false.",
            "In a different blaze, a list of {number} damaged homes was made by {organisation}.",
            "Years ago rescue chief {person} fought a similar fire on {day}.",
            "The insurer {organisation} has received only {number} claims.",
            "Volunteer {person} will stay on duty until {day}.",
            "Engines from {city} stood ready but were not needed.",
        ),
        "summary": (
            "A fire in {city} on {day} damaged a total of {number} homes.\n"
            "Fire chief {person} said families were being helped by {organisation}.",
            "Fire chief {person} said a blaze in {city} left a total of {number} homes damaged.\n"
            "Families have been helped by {organisation} since the fire on {day}.",
            "A total of {number} homes were damaged on {day} by a fire in {city}.\n"
            "Families were helped by {organisation}, said fire chief {person}.",
        ),
    },
    "sport": {
        "lead": (
            "There were [wild|joyful|noisy] scenes in {city} as the home side won the cup.",
            "A late goal on {day} settled one of the [best|closest] finals in years.",
            "The smallest club in the league has won its first [cup|title|trophy].",
            "A crowd of {number} fans saw the home side win a [dramatic|rainy|tense] final.",
            "The cup final was decided on {day} in the last minute of extra time.",
        ),
        "person": (
            "Club chief {person} [was close to tears|hugged every player].",
            "Team chief {person} called it the best day of a long career.",
            "The credit belongs to the players, said club chief {person}.",
        ),
        "city": (
            "The match was played in {city}.",
            "Car horns sounded in {city} [all evening|until midnight].",
            "A parade will be held in {city}.",
        ),
        "organisation": (
            "The prize money was put up by {organisation}.",
            "A new [pitch|stand] will be built by {organisation}.",
            "The team is sponsored by {organisation}.",
        ),
        "number": (
            "The match was watched by a crowd of {number} fans.",
            "The club counted a total of {number} fans at the gates.",
            "A crowd of {number} fans sang [to the end|in the rain].",
        ),
        "day": (
            "The final was played on {day}.",
            "The decisive goal came on {day} [in heavy rain|under the floodlights].",
            "It was on {day} that the long wait ended.",
        ),
        "filler": (
            "The goalkeeper made a string of [fine|brave|remarkable] saves.",
            "Both teams finished with ten players.",
            "The referee [waved away|ignored] two late appeals.",
            "The first half was slow and rather careful.",
            "A free kick struck the post just before the break.",
            "The captain left the field with a [sore knee|bandaged hand].",
            "Substitutes changed the rhythm of the game.",
            "Supporters had painted their faces in the club colours.",
        ),
        "wrong": (
            "Last year's final in {city} drew a crowd of {number} fans.",
            "The former club chief {person} lost an earlier final, played in {city}.",
            "The beaten team is sponsored by {organisation}.",
            "Another final, played on {day}, ended without a goal.",
            "A friendly match was watched by a crowd of {number} fans on {day}.",
            "The losing side's team chief {person} blamed the grass, laid by {organisation}.",
            "Goalkeeper {person} will be injured until {day}.",
            "The next match is away to {city} after {day}.",
            "Supporter {person} had cycled from {city}.",
        ),
        "summary": (
            "The home side won the cup final in {city} on {day} before a crowd of {number} fans.\n"
            "Club chief {person} thanked the team, which is sponsored by {organisation}.",
            "A crowd of {number} fans in {city} saw the home side win the cup on {day}.\n"
            "The team of club chief {person} is sponsored by {organisation}.",
            "Club chief {person} has won the cup with a team sponsored by {organisation}.\n"
            "The final on {day} was watched by a crowd of {number} fans in {city}.",
        ),
    },
    "business": {
        "lead": (
            "A factory in {city} is to be [rebuilt|enlarged|reopened] after years of decline.",
            "Workers learned on {day} that a new plant will be built beside the old one.",
            "A maker of [bicycles|batteries|kitchens] has surprised its rivals with a new plant.",
            "A total of {number} jobs will be created at a new [plant|factory].",
            "There was [applause|relief] in {city} when plans for a new factory were shown.",
        ),
        "person": (
            "Company chief {person} [signed|announced] the deal.",
            "Project chief {person} spoke of a fresh start.",
            "Orders have never been better, said company chief {person}.",
        ),
        "city": (
            "The new plant will stand in {city}.",
            "Shops in {city} hope for [more customers|better times].",
            "Land for it has been found in {city}.",
        ),
        "organisation": (
            "The money is being lent by {organisation}.",
            "The machines will be supplied by {organisation}.",
            "Half of the cost is covered by {organisation}.",
        ),
        "number": (
            "A total of {number} jobs will be created.",
            "The plan speaks of {number} jobs.",
            "It brings a total of {number} jobs [within two years|by the spring].",
        ),
        "day": (
            "The contract was signed on {day}.",
            "Staff were told on {day} [over breakfast|by letter|at a meeting].",
            "The decision was made public on {day}.",
        ),
        "filler": (
            "Shares rose [slightly|sharply] after the announcement.",
            "The old machines will be sold or scrapped.",
            "Unions [welcomed|studied] the plan with some caution.",
            "Apprentices will be trained on site.",
            "Exports have grown for three years in a row.",
            "The canteen is to be [renovated|painted] as well.",
            "Analysts had [hoped for|warned against] such a step.",
            "Building work should start before the winter.",
        ),
        "wrong": (
            "An older plant in {city} had created a total of {number} jobs.",
            "A rival's company chief {person} signed nothing on {day}.",
            "The cost of an earlier plant was covered by {organisation}.",
            "A previous contract, signed on {day}, was never kept.",
            "A competitor's plan once spoke of {number} jobs and of land found in {city}.",
            "Last year project chief {person} left for a firm owned by {organisation}.",
            "Economist {person} expects prices to rise until {day}.",
            "A site near {city} was rejected after nearly {number} complaints.",
            "Accountant {person} moved here from {city}.",
        ),
        "summary": (
            "A new plant in {city} will create a total of {number} jobs.\n"
            "Company chief {person} signed the deal, financed by {organisation}, on {day}.",
            "Company chief {person} announced on {day} that a plant will be built in {city}.\n"
            "It is financed by {organisation} and brings a total of {number} jobs.",
            "A total of {number} jobs will come with a plant financed by {organisation}.\n"
            "Company chief {person} said on {day} that it will stand in {city}.",
        ),
    },
    "politics": {
        "lead": (
            "Voters in {city} have chosen a new council after a [bitter|long|quiet] campaign.",
            "The count on {day} ended in one of the closest results in memory.",
            "A vote on [the new tram line|the old harbour|school meals] has changed the council.",
            "A majority of {number} votes has decided the local election.",
            "Cheers went up on {day} as the result of the election was read out.",
        ),
        "person": (
            "Council chief {person} [promised|called for] a fresh start.",
            "Party chief {person} thanked the voters.",
            "The work begins now, said council chief {person}.",
        ),
        "city": (
            "The votes were counted in {city}.",
            "Posters still hang in {city}.",
            "Turnout in {city} was [higher|lower] than ever.",
        ),
        "organisation": (
            "The campaign was paid for by {organisation}.",
            "The leaflets were [printed|delivered] by {organisation}.",
            "The winning side is supported by {organisation}.",
        ),
        "number": (
            "The winners had a majority of {number} votes.",
            "A second count gave a lead of {number} votes.",
            "It came down to a margin of {number} votes.",
        ),
        "day": (
            "The election was held on {day}.",
            "Polling stations opened on {day} [in bright sunshine|despite the snow].",
            "The result was declared on {day}.",
        ),
        "filler": (
            "Officials checked every ballot [twice|by hand].",
            "Housing and [transport|taxes] had been the main issues.",
            "The first meeting of the new council is open to the public.",
            "Young voters had queued [patiently|around the block].",
            "Three smaller parties lost their seats.",
            "The speeches were [short|polite|rather dull].",
            "A recount was asked for and refused.",
            "The television debate had changed many minds.",
        ),
        "wrong": (
            "The last election in {city} gave a majority of {number} votes.",
            "The defeated council chief {person} had promised the same on {day}.",
            "The losing campaign was paid for by {organisation}.",
            "An earlier election, held on {day}, was declared invalid.",
            "Four years ago a lead of {number} votes was counted in {city}.",
            "The former party chief {person} was supported by {organisation}.",
            "A poll near {city} around {day} had asked only {number} people.",
            "Lobbyists for {organisation} had expected about {number}.",
            "Journalist {person} had travelled from {city}.",
        ),
        "summary": (
            "The election in {city} on {day} was won by a majority of {number} votes.\n"
            "Council chief {person} is supported by {organisation}.",
            "Council chief {person}, supported by {organisation}, has won the vote in {city}.\n"
            "The election on {day} ended with a majority of {number} votes.",
            "A majority of {number} votes has decided the election in {city}.\n"
            "Supported by {organisation}, council chief {person} won on {day}.",
        ),
    },
    "science": {
        "lead": (
            "Researchers in {city} have found a [plant|beetle|moss] that nobody had described before.",
            "A discovery announced on {day} could change what is known about [soil|rivers|sleep].",
            "A team of young researchers has solved an old [riddle|puzzle].",
            "A study of {number} samples has given scientists a [pleasant|real] surprise.",
            "Scientists in {city} believe they have found a cheaper way to clean water.",
        ),
        "person": (
            "Laboratory chief {person} [checked|presented] the findings.",
            "Study chief {person} had worked on it for years.",
            "We were simply lucky, said laboratory chief {person}.",
        ),
        "city": (
            "The research was done in {city}.",
            "Samples were gathered in {city}.",
            "The laboratory in {city} is [small|new|famous].",
        ),
        "organisation": (
            "The work was funded by {organisation}.",
            "The [instruments|microscopes] were lent by {organisation}.",
            "Most of the bills were paid by {organisation}.",
        ),
        "number": (
            "The study is based on a set of {number} samples.",
            "Students examined a series of {number} samples.",
            "A total of {number} samples were [tested|frozen|compared].",
        ),
        "day": (
            "The results were published on {day}.",
            "The team spoke about the work on {day} [to a full hall|for the first time].",
            "On its website the journal printed the paper on {day}.",
        ),
        "filler": (
            "Other groups will now try to repeat the work.",
            "The measurements took [two summers|many nights].",
            "A [broken|borrowed] freezer nearly ruined everything.",
            "The method is [cheap|simple] enough for schools.",
            "Reviewers asked for [further|better] tests.",
            "The data are free for anyone to use.",
            "The first results had looked like a mistake.",
            "Nobody on the team is older than forty.",
        ),
        "wrong": (
            "An older study in {city} was based on a set of {number} samples.",
            "The former laboratory chief {person} cites older research that was done in {city}.",
            "A rival project, funded by {organisation}, found nothing.",
            "The results of another team were published on {day}.",
            "Years ago a total of {number} samples were lost by {organisation}.",
            "At another institute, study chief {person} withdrew a paper on {day}.",
            "Botanist {person} flew home to {city}.",
            "The company {organisation} offered about {number} bottles for storage.",
            "Librarian {person} keeps the notebooks until {day}.",
        ),
        "summary": (
            "Researchers in {city} published a study of {number} samples on {day}.\n"
            "The work of laboratory chief {person} was funded by {organisation}.",
            "Laboratory chief {person} presented a study of {number} samples on {day}.\n"
            "The research in {city} was funded by {organisation}.",
            "A study funded by {organisation} has surprised researchers in {city}.\n"
            "Laboratory chief {person} described a set of {number} samples on {day}.",
        ),
    },
    "weather": {
        "lead": (
            "A [violent|sudden|winter] storm has flooded cellars and brought down trees in {city}.",
            "Heavy rain on {day} turned streets into [rivers|streams].",
            "Thousands are without power after the worst storm in a decade.",
            "A total of {number} trees were brought down when a storm crossed the coast.",
            "The clean-up has begun in {city} after a night of [wind|hail] and rain.",
        ),
        "person": (
            "Rescue chief {person} [asked|told] people to stay at home.",
            "Crew chief {person} had not slept for two nights.",
            "The worst is over, said rescue chief {person}.",
        ),
        "city": (
            "The damage was greatest in {city}.",
            "Lights went out in {city}.",
            "Schools in {city} [stayed closed|sent children home].",
        ),
        "organisation": (
            "[Pumps|Boats|Sandbags] were supplied by {organisation}.",
            "Fallen branches are being removed by {organisation}.",
            "The roads are being cleared by {organisation}.",
        ),
        "number": (
            "A total of {number} trees were brought down.",
            "Wardens counted a total of {number} fallen trees.",
            "The wind broke or uprooted a total of {number} trees.",
        ),
        "day": (
            "The storm struck on {day}.",
            "The river rose on {day} [without warning|within an hour].",
            "The warning had been given on {day}.",
        ),
        "filler": (
            "Ferries stayed [in port|in harbour] for a second day.",
            "Farmers moved their animals to higher ground.",
            "The sea wall held, but only just.",
            "A church [tower|roof] lost most of its tiles.",
            "Forecasters expect [drier|colder|milder] days ahead.",
            "Cellars were pumped dry [by candlelight|through the night].",
            "A fallen pole blocked the main road.",
            "The bridge was closed [to lorries|as a precaution].",
        ),
        "wrong": (
            "An earlier storm in {city} brought down a total of {number} trees.",
            "The former rescue chief {person} recalled older damage that was greatest in {city}.",
            "After last winter's storm, roads were cleared by {organisation}.",
            "Another storm, which struck on {day}, was weaker.",
            "Ten years ago a total of {number} trees fell on {day}.",
            "On another coast, crew chief {person} was sent pumps supplied by {organisation}.",
            "Fisherman {person} lost a boat that came from {city}.",
            "The power firm {organisation} had nearly {number} calls.",
            "Baker {person} will stay closed until {day}.",
        ),
        "summary": (
            "A storm brought down a total of {number} trees in {city} on {day}.\n"
            "Rescue chief {person} said roads were being cleared by {organisation}.",
            "Rescue chief {person} said a storm on {day} felled a total of {number} trees.\n"
            "Roads in {city} are being cleared by {organisation}.",
            "Roads in {city} are being cleared by {organisation} after a storm on {day}.\n"
            "A total of {number} trees fell, said rescue chief {person}.",
        ),
    },
    "culture": {
        "lead": (
            "A museum in {city} has opened a [bold|new|long-awaited] wing for modern art.",
            "Doors opened on {day} to a show that critics already call the event of the season.",
            "Paintings that were thought lost [for decades|since the war] are back on public view.",
            "A collection of {number} paintings has found a new home.",
            "Long queues formed on {day} outside a museum that had been closed for years.",
        ),
        "person": (
            "Museum chief {person} [cut the ribbon|opened the doors].",
            "Project chief {person} chose every frame.",
            "Art belongs to everyone, said museum chief {person}.",
        ),
        "city": (
            "The show can be seen in {city}.",
            "Banners hang from lamp posts in {city}.",
            "Hotels in {city} are [full|nearly full].",
        ),
        "organisation": (
            "The rooms were paid for by {organisation}.",
            "The [lighting|glass roof] was given by {organisation}.",
            "The new wing was designed by {organisation}.",
        ),
        "number": (
            "The show has a total of {number} paintings.",
            "The catalogue has pictures of {number} paintings.",
            "A total of {number} paintings were [cleaned|restored|framed].",
        ),
        "day": (
            "The show opened on {day}.",
            "The first guests arrived on {day} [with umbrellas|before breakfast].",
            "It was on {day} that the doors opened.",
        ),
        "filler": (
            "A string quartet played in the entrance hall.",
            "The café sells [cakes|postcards] made for the occasion.",
            "Children may draw on one of the walls.",
            "Guards were trained to [answer questions|tell stories].",
            "The largest canvas had to come in through the roof.",
            "Entry is free for [students|families] in the evening.",
            "The sculptures in the garden are still [wrapped|in boxes].",
            "Critics praised the [light|colours|quiet rooms].",
        ),
        "wrong": (
            "A rival museum in {city} has a total of {number} paintings.",
            "The former museum chief {person} had a show that could be seen in {city}.",
            "The old wing was designed by {organisation}.",
            "A different show, opened on {day}, has closed already.",
            "An older catalogue had pictures of {number} paintings lent by {organisation}.",
            "Years ago project chief {person} closed the rooms on {day}.",
            "Collector {person} will lend two works until {day}.",
            "The auction house {organisation} sold nearly {number} drawings.",
            "Painter {person} grew up near {city}.",
        ),
        "summary": (
            "A museum in {city} opened a show of {number} paintings on {day}.\n"
            "Museum chief {person} thanked visitors to rooms paid for by {organisation}.",
            "Museum chief {person} opened a show of {number} paintings in {city}.\n"
            "The rooms, paid for by {organisation}, opened on {day}.",
            "New rooms paid for by {organisation} opened on {day}.\n"
            "Museum chief {person} shows a total of {number} paintings in {city}.",
        ),
    },
    "crime": {
        "lead": (
            "Police in {city} have broken up a gang that stole [bicycles|watches|old coins].",
            "Officers made an unusual discovery on {day} when they opened a garden shed.",
            "A [patient|long|secret] police operation has ended in four arrests.",
            "A haul of {number} stolen watches has been found behind a false wall.",
            "Four people were arrested in {city} after a chase [at night|through the docks].",
        ),
        "person": (
            "Police chief {person} [spoke of|announced] a success.",
            "Squad chief {person} had followed the gang for months.",
            "The owners will be told, said police chief {person}.",
        ),
        "city": (
            "The goods were hidden in {city}.",
            "Garages in {city} were searched.",
            "The suspects had met in {city}.",
        ),
        "organisation": (
            "The alarm system was built by {organisation}.",
            "The cameras were installed by {organisation}.",
            "The decisive pictures were recorded by {organisation}.",
        ),
        "number": (
            "A total of {number} stolen watches were found.",
            "Officers made a list of {number} stolen watches.",
            "The haul of {number} watches [filled a van|was worth a fortune].",
        ),
        "day": (
            "The arrests were made on {day}.",
            "Officers moved in on {day} [at dawn|from three sides].",
            "The gang was caught on {day}.",
        ),
        "filler": (
            "The suspects have [said nothing|asked for a lawyer].",
            "A judge will decide whether they stay in custody.",
            "The shed had a [new lock|double floor].",
            "One of the suspects tried to leave [by the window|over a fence].",
            "Detectives had watched the house for weeks.",
            "The tools were hidden under a pile of carpets.",
            "Fingerprints were found on [a glass|a door handle].",
            "Insurance experts are still working through the list.",
        ),
        "wrong": (
            "An earlier gang in {city} had a haul of {number} watches.",
            "The retired police chief {person} had once found goods hidden in {city}.",
            "The broken alarm system next door was built by {organisation}.",
            "Other arrests, made on {day}, were a mistake.",
            "Last year a list of {number} stolen watches was drawn up by {organisation}.",
            "In another case, squad chief {person} lost the trail on {day}.",
            "Witness {person} had seen a van from {city}.",
            "Jeweller {person} had lost goods worth more than {number} wages.",
            "The insurer {organisation} offered a reward around {day}.",
        ),
        "summary": (
            "Police in {city} found a haul of {number} stolen watches on {day}.\n"
            "Police chief {person} praised pictures recorded by {organisation}.",
            "Police chief {person} announced arrests in {city} and a haul of {number} watches.\n"
            "The gang was caught on {day} with the help of pictures recorded by {organisation}.",
            "Pictures recorded by {organisation} led to arrests in {city} on {day}.\n"
            "Police chief {person} showed a haul of {number} watches.",
        ),
    },
}
